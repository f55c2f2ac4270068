"""Bilingual instruction tuning: visual module and language model learn the blend's answers."""

from __future__ import annotations

from collections import Counter

from tokenizers import Tokenizer

from models.chat import encode_conversation, padding_token
from models.vision_language import load
from pipelines.command_line import main
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work
from pipelines.training.loop import train
from pipelines.training.pretrain import ShardImages
from pipelines.training.publish import publish_model, weights_of
from pipelines.training.samples import Sample
from pipelines.training.spec import FINETUNE, FinetuneSpec


class InstructionSamples:
    """Conversations about an image, in whatever language each turn is."""

    def __init__(self, images: ShardImages, tokenizer: Tokenizer, image_tokens: int) -> None:
        self._images, self._tokenizer, self._image_tokens = images, tokenizer, image_tokens

    def __len__(self) -> int:
        return len(self._images)

    @property
    def lengths(self) -> None:
        return None

    def sample(self, index: int, epoch: int) -> Sample:
        pixels, document = self._images.read(index)
        turns = [(turn["question"], turn["answer"]) for turn in document["turns"]]
        return Sample(encode_conversation(self._tokenizer, turns, image_tokens=self._image_tokens), pixels)

    def languages(self) -> dict[str, int]:
        """Turns by language."""
        count: Counter[str] = Counter()
        for index in range(len(self)):
            count.update(turn["language"] for turn in self._images.read(index)[1]["turns"])
        return dict(sorted(count.items()))


def run(spec: FinetuneSpec, work: Work, progress: Progress) -> Outcome:
    """Tune the pretrained model; publish the model folder and the loss curve."""
    with weights_of(spec.pretrained):
        model = load(manifest.folder(spec.pretrained))
    images = ShardImages([spec.instructions], model.visual.config.image_size)
    samples = InstructionSamples(images, model.tokenizer, model.image_tokens)
    trained = train(
        model.train(), samples, pad=padding_token(model.tokenizer), optimisation=spec.optimisation,
        work=work, progress=progress, what="instruction tuning",
    )  # fmt: skip
    publish_model(model, trained.weights, work.out)
    return Outcome(metrics={**trained.metrics, "turns_by_language": samples.languages()})


if __name__ == "__main__":
    main(FINETUNE)
