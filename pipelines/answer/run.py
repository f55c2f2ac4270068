"""Asking: image features once per distinct image, then every question, greedily, in batches."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from models import vision_language
from models.vision_language import VisionLanguageModel
from models.weights import WeightsError
from pipelines.answer.spec import AnswerSpec
from pipelines.benchmarks import answers as answers_table
from pipelines.benchmarks import suite
from pipelines.benchmarks.suite import Asked
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work


def run(spec: AnswerSpec, work: Work, progress: Progress) -> Outcome:
    """Write answers.parquet: a row per benchmark, language, item and rotation."""
    asked = suite.load(spec.benchmarks, spec.parameters.languages)
    model = _load(manifest.folder(spec.model))
    features, position = _see(model, asked, spec.parameters.batch_size, progress)
    answers: list[str] = []
    progress.start("questions", len(asked), unit="question")
    # Several batches at once: the model makes batches of prompts of like length.
    at_once = 4 * spec.parameters.batch_size
    for start in range(0, len(asked), at_once):
        batch = asked[start : start + at_once]
        answers += model.answer_seen(
            features[[position[one.image_sha256] for one in batch]],
            [one.prompt for one in batch],
            max_new_tokens=spec.parameters.max_new_tokens,
            batch_size=spec.parameters.batch_size,
        )
        progress.advance(len(batch))
    answers_table.write(asked, answers, work.out / answers_table.FILE)
    return Outcome(
        metrics={
            "questions": len(asked),
            "images": len(position),
            "empty_answers": sum(not answer.strip() for answer in answers),
        },
        rows={answers_table.FILE: len(asked)},
    )


def _load(folder: Path) -> VisionLanguageModel:
    try:
        return vision_language.load(folder)
    except WeightsError as error:
        raise BadInput(
            f"the model cannot be loaded: {error}",
            where=folder,
            remedy="give the table of a pretrained or tuned model, or run the stage that makes it again",
        ) from None


def _see(
    model: VisionLanguageModel, asked: Sequence[Asked], batch_size: int, progress: Progress
) -> tuple[torch.Tensor, dict[str, int]]:
    """Features of the distinct images, and the row of each by its sha256."""
    images = {one.image_sha256: one.image for one in asked}
    files = list(images.values())
    seen = []
    progress.start("images", len(files), unit="image")
    for start in range(0, len(files), batch_size):
        batch = [Image.open(io.BytesIO(file)).convert("RGB") for file in files[start : start + batch_size]]
        seen.append(model.see(batch))
        progress.advance(len(batch))
    return torch.cat(seen), {digest: row for row, digest in enumerate(images)}
