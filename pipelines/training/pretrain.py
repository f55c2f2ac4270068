"""Multimodal pretraining: the visual module learns to make a frozen language model write captions.

Only captions in the pivot language are read (MpM paper, section 3.1): what the model can do in
another language afterwards it got from the language model alone.
"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from models.chat import encode_conversation, padding_token
from models.language_model import load_language_model
from models.vision_language import VisionLanguageModel, load_visual_module, preprocess
from pipelines.command_line import main
from pipelines.lake import manifest
from pipelines.lake.shards import ShardReader
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work
from pipelines.training.loop import train
from pipelines.training.publish import publish_model, weights_of
from pipelines.training.samples import Sample
from pipelines.training.spec import PRETRAIN, PretrainSpec

CACHED_IMAGES = 20_000
"""Decoded images that a rank keeps: at 48 pixels, 7 kB each."""


class ShardImages:
    """The images and documents of several tables of shards, as one list; decoded images are kept."""

    def __init__(self, tables: Sequence[Path], size: int) -> None:
        self._readers = [ShardReader(table) for table in tables]
        self._starts = np.cumsum([0, *(len(reader) for reader in self._readers)])
        self._size = size
        self.read = lru_cache(CACHED_IMAGES)(self._read)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _read(self, index: int) -> tuple[np.ndarray, dict]:
        table = int(np.searchsorted(self._starts, index, side="right")) - 1
        image, document = self._readers[table][index - int(self._starts[table])]
        return preprocess(Image.open(io.BytesIO(image)), self._size), document


class CaptionSamples:
    """Image-caption pairs as one-turn conversations: a request drawn anew each epoch, and the caption."""

    def __init__(
        self, images: ShardImages, tokenizer: Tokenizer, spec: PretrainSpec, image_tokens: int
    ) -> None:
        self._images, self._tokenizer = images, tokenizer
        self._spec, self._image_tokens = spec, image_tokens

    def __len__(self) -> int:
        return len(self._images)

    @property
    def lengths(self) -> None:
        return None

    def sample(self, index: int, epoch: int) -> Sample:
        pixels, document = self._images.read(index)
        draw = random.Random(f"{self._spec.optimisation.seed} {epoch} {index}")
        turn = (draw.choice(self._spec.prompts), document["captions"][self._spec.pivot_language])
        return Sample(encode_conversation(self._tokenizer, [turn], image_tokens=self._image_tokens), pixels)


def run(spec: PretrainSpec, work: Work, progress: Progress) -> Outcome:
    """Train the visual module; publish the model folder and the loss curve."""
    with weights_of(spec.language_model, spec.vision):
        language_model, tokenizer = load_language_model(manifest.folder(spec.language_model))
        visual = load_visual_module(manifest.folder(spec.vision))
    model = VisionLanguageModel(visual, language_model, tokenizer)
    images = ShardImages(list(spec.shards.values()), visual.config.image_size)
    samples = CaptionSamples(images, tokenizer, spec, model.image_tokens)
    trained = train(
        model, samples, pad=padding_token(tokenizer), optimisation=spec.optimisation,
        work=work, progress=progress, what="multimodal pretraining",
    )  # fmt: skip
    # DeepSpeed rounded the frozen weights to the precision of the training: publish them as they were.
    model.language_model = load_language_model(manifest.folder(spec.language_model))[0]
    publish_model(model, trained.weights, work.out)
    return Outcome(metrics={**trained.metrics, "language": spec.pivot_language})


if __name__ == "__main__":
    main(PRETRAIN)
