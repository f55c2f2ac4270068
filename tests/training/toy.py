"""A training that is small enough to be held against plain PyTorch, run by real ranks.

`python -m tests.training.toy SPECS` trains it, by each of the specs, and writes what came of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn

from models.architecture import MultilingualExperts, QueryTransformer, Visual
from models.chat import END_OF_TEXT, IGNORED, IMAGE, TURN_END, TURN_START, Encoded
from models.language_model import SmallConfig, Supervision, make_language_model
from models.packing import Packing
from models.vision_language import VisionLanguageModel, make_visual_module
from pipelines.errors import BAD_INPUT_EXIT_CODE, INTERRUPTED_EXIT_CODE, BadInput, Interrupted
from pipelines.progress import Progress
from pipelines.stage import Work
from pipelines.training.samples import Sample

VOCABULARY, IMAGE_TOKEN, QUERIES, SIZE = 40, 39, 2, 16


class Toy(VisionLanguageModel):
    """The real model, at the smallest size."""

    def __init__(self, poison: int | None = None, *, experts: bool = False) -> None:
        encoder = QueryTransformer(
            image_size=SIZE, patch_size=8, queries=QUERIES, width=16, layers=1, heads=2
        )
        routed = MultilingualExperts(experts=2) if experts else None
        visual = make_visual_module(Visual(encoder=encoder, experts=routed), 16, seed=0)
        shape = SmallConfig(width=16, layers=2, heads=2, mlp_width=32, positions=128)
        language_model = make_language_model(shape, vocabulary=VOCABULARY, seed=0)
        super().__init__(visual, language_model, words())
        if visual.moe is not None:
            # From zeros, where a training begins, the first gradients of half of them are rounding.
            for one in visual.moe.parameters():
                nn.init.normal_(one, std=0.3)
        self.poison = poison

    def forward(
        self, ids: Tensor, labels: Tensor, pixels: Tensor | None = None,
        packing: Packing | None = None, supervision: Supervision | None = None,
    ) -> Tensor:  # fmt: skip
        losses = super().forward(ids, labels, pixels, packing, supervision)
        if self.poison is not None and bool((ids == self.poison).any()):
            losses = losses * float("nan")
        return losses


def words() -> Tokenizer:
    """A tokenizer with the marks of a chat and an image; of the other ids it knows no words."""
    marks = {END_OF_TEXT: 0, TURN_START: 1, TURN_END: 2, IMAGE: IMAGE_TOKEN}
    return Tokenizer(WordLevel(marks, unk_token=END_OF_TEXT))


@dataclass(frozen=True)
class ToySamples:
    """Conversations of uneven length; every third has no image, or none has one."""

    count: int = 24
    text_only: bool = False

    def __len__(self) -> int:
        return self.count

    def text(self, index: int, epoch: int | None) -> tuple[Encoded, str]:
        draw = np.random.default_rng([index, epoch or 0])
        length = 4 + index % 7
        words = draw.integers(1, VOCABULARY - 2, length).tolist()
        labels = [IGNORED] * 2 + words[2:]
        if not self.images(index):
            return Encoded(words, labels), "toy/zh"
        return Encoded([IMAGE_TOKEN] * QUERIES + words, [IGNORED] * QUERIES + labels), "toy/en"

    def images(self, index: int) -> int:
        return int(not self.text_only and index % 3 != 2)

    def sample(self, index: int, epoch: int) -> Sample:
        text, group = self.text(index, epoch)
        draw = np.random.default_rng([index, epoch, 1])
        pixels = draw.integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8) if self.images(index) else None
        return Sample(text, pixels, group)


def main() -> None:
    """Train, one after another, by the specs in the file named first; what came of each goes into its folder."""
    for told in json.loads(Path(sys.argv[1]).read_text()):
        code = one_run(told)
        if len(sys.argv) > 2:
            sys.exit(code)


def one_run(told: dict[str, Any]) -> int:
    """Train by one spec; the exit code that a stage would have."""
    from pipelines.training import zero
    from pipelines.training.gap import HeldOut
    from pipelines.training.loop import train
    from pipelines.training.spec import Optimisation

    folder = Path(told["folder"])
    work = Work(folder)
    rank = int(os.environ.get("RANK", "0"))
    if rank == 0:
        work.out.mkdir(parents=True, exist_ok=True)
    progress = _Disturbing(told.get("kill_at"), told.get("stop_at"), folder / "said.txt", silent=rank != 0)
    toy = Toy(told.get("poison"), experts=told.get("experts", False)).train()
    if "touch_at" in told:
        progress.at(told["touch_at"], lambda: touch(toy.language_model.model.norm.weight))
    zero.PERSISTENT_ELEMENTS = told.get("persistent", zero.PERSISTENT_ELEMENTS)
    if told.get("other_frozen_weights"):
        with torch.no_grad():
            toy.language_model.model.norm.weight[0] += 1e-6
    if "save_again" in told:
        save_again(toy, Optimisation(**told["optimisation"]), Path(told["save_again"]), folder)
        return 0
    # Of one sample: other ranks have none.
    held_out = (
        HeldOut("en", [replace(ToySamples().sample(0, 0), group="en")]) if told.get("held_out") else None
    )
    try:
        trained = train(
            toy, ToySamples(**told.get("samples", {})), pad=0, held_out=held_out,
            optimisation=Optimisation(**told["optimisation"]), work=work, progress=progress, what="toy",
        )  # fmt: skip
    except BadInput as error:
        (folder / f"error-{rank}.txt").write_text(str(error))
        return BAD_INPUT_EXIT_CODE
    except Interrupted:
        return INTERRUPTED_EXIT_CODE
    except AssertionError as error:
        (folder / f"error-{rank}.txt").write_text(str(error))
        return 1
    if rank == 0:
        save_file(trained.weights, folder / "weights.safetensors")
        (folder / "metrics.json").write_text(json.dumps(trained.metrics))
    return 0


@torch.no_grad()
def touch(parameter: nn.Parameter) -> None:
    """Change one number of what this rank holds of a parameter, by as little as can be."""
    held = getattr(parameter, "ds_tensor", parameter).flatten()
    held[0] = torch.nextafter(held[0], held[0] + 1)


def save_again(toy: Toy, optimisation: Any, checkpoint: Path, folder: Path) -> None:
    """Load a checkpoint on these ranks, and save it at once into `folder`."""
    from pipelines.training import checkpoint as checkpoints
    from pipelines.training.engine import join_group, make_engine

    join_group()
    engine = make_engine(toy, optimisation)
    step = checkpoints.load(checkpoint, engine, {})
    checkpoints.save(folder, step, engine, {}, kept=1, keep_every=None)


class _Disturbing(Progress):
    """Sends its own process a signal once so many steps are done: SIGKILL has no handler and no last words."""

    def __init__(self, kill_at: int | None, stop_at: int | None, said: Path, *, silent: bool) -> None:
        super().__init__("toy", silent=True)
        self._signals = {kill_at: signal.SIGKILL, stop_at: signal.SIGTERM}
        self._said = None if silent else said
        self._then: dict[int, Callable[[], None]] = {}

    def at(self, step: int, then: Callable[[], None]) -> None:
        """Do something once so many steps are done."""
        self._then[step] = then

    def say(self, message: str) -> None:
        if self._said is not None:
            with self._said.open("a") as stream:
                stream.write(message + "\n")

    def advance(self, units: int = 1, **figures: float) -> None:
        super().advance(units, **figures)
        self._then.get(self._done, lambda: None)()
        if (sent := self._signals.get(self._done)) is not None:
            os.kill(os.getpid(), sent)


if __name__ == "__main__":
    main()
