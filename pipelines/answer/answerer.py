"""What answers questions: one protocol, and the models of this project behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from models import vision_language
from models.generation import BEAMS, LENGTH_PENALTY, read_generation
from models.vision_language import VisionLanguageModel
from models.weights import WeightsError
from pipelines.answer.features import Features
from pipelines.benchmarks.pictures import opened
from pipelines.benchmarks.question import Asked, Key
from pipelines.errors import BadInput
from pipelines.progress import Progress


@dataclass(frozen=True)
class NoAnswer:
    """Why a server gave no answer to a question."""

    reason: str
    """A fixed word, to be counted: http_400, content_filter, timeout, ..."""
    lasting: bool
    """Whether it refused this very question, and would again."""


Said = dict[Key, str | NoAnswer]


class Answerer(Protocol):
    """Answers questions about images that it was shown before."""

    def see(self, images: Mapping[str, Asked], progress: Progress) -> None:
        """Take the distinct images, each once: sha256 -> a question about it. What is computed is kept for all questions.

        Raises:
            BadInput: an image cannot be decoded.
        """

    def answer(self, asked: Sequence[Asked], max_new_tokens: int) -> Iterator[Said]:
        """The answers, greedy unless beams are asked for, some at a time, as soon as they are there.

        They do not depend on what is asked together.
        """


class OwnModel:
    """A model folder of this project. Image states are computed once per image, and lie in a file, not in memory."""

    def __init__(self, folder: Path, *, scratch: Path, batch_size: int, beams: int | None = None) -> None:
        """`beams`: none: as many as the model's own settings say. Its penalties hold in any case."""
        model, self.settings = _load(folder)
        self.model = model.to(device())
        own = int(self.settings.pop(BEAMS, 1))
        self.batch_size, self.beams = batch_size, beams or own
        if self.beams == 1:
            self.settings.pop(LENGTH_PENALTY, None)
        self.features = Features(scratch)
        self.experts: dict[Key, list[float]] = {}
        """The weight of each expert for each question that was answered, of a model that has experts."""

    def see(self, images: Mapping[str, Asked], progress: Progress) -> None:
        digests = list(images)
        progress.start("images", len(digests), unit="image")
        for start in range(0, len(digests), self.batch_size):
            batch = digests[start : start + self.batch_size]
            states = self.model.see([opened(images[digest]) for digest in batch])
            self.features.add(batch, states, expected=len(digests))
            progress.advance(len(batch))

    def answer(self, asked: Sequence[Asked], max_new_tokens: int) -> Iterator[Said]:
        prompts = [self.model.chat.encode([(one.prompt, None)], images=1).ids for one in asked]
        # Batches of like length: less padding.
        order = sorted(range(len(asked)), key=lambda index: len(prompts[index]))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            states = self.features.of([asked[index].image_sha256 for index in chosen]).to(self.model.device)
            rows = [prompts[index] for index in chosen]
            said = self.model.generate(
                rows, states, max_new_tokens=max_new_tokens, beams=self.beams, **self.settings
            )
            self._route([asked[index].key for index in chosen])
            yield {asked[index].key: text.strip() for index, text in zip(chosen, said, strict=True)}

    def _route(self, keys: Sequence[Key]) -> None:
        weights = self.model.routing
        if weights is None:
            return
        for key, row in zip(keys, weights.float().cpu().tolist(), strict=True):
            self.experts[key] = [round(weight, 5) for weight in row]


def _load(folder: Path) -> tuple[VisionLanguageModel, dict[str, Any]]:
    """The model, and how it answers."""
    try:
        return vision_language.load(folder), read_generation(folder)
    except WeightsError as error:
        raise BadInput(
            f"the model cannot be loaded: {error}",
            where=folder,
            remedy="give the table of a pretrained or tuned model, or run the stage that makes it again",
        ) from None


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
