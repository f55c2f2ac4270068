"""LLaVA Test Set: 90 questions about 30 COCO images, a third each conversation, detail and complex reasoning.

A judge rates the reference and the model's answer from 1 to 10, the reference first; the score is the mean of the
answers over the mean of the references. English as LLaVA published it, Chinese as VisCPM translated it (its faults are
part of the benchmark), five more languages through the translation stage, as in the MpM paper's Table 3.

Files per language: `llava_<l>.jsonl` (question_id, image, text, category), `llava_context_<l>.jsonl` (image, captions,
instances with category and bbox), `llava_reference_<l>.jsonl` (question_id, text).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.benchmarks import json_files
from pipelines.benchmarks.benchmark import Benchmark
from pipelines.benchmarks.files import Files
from pipelines.benchmarks.question import Asked
from pipelines.errors import BadInput

FILE = "llava_{language}.jsonl"
CONTEXT = "llava_context_{language}.jsonl"
REFERENCE = "llava_reference_{language}.jsonl"
CATEGORIES = ("conv", "detail", "complex")


def questions(files: Files, language: str) -> list[Asked]:
    """The questions, with reference and context for the judge.

    Raises:
        BadInput: a line is malformed, or a question has no reference, no context or no image.
    """
    path = files.path(FILE.format(language=language))
    told = files.path(CONTEXT.format(language=language))
    contexts = {
        row["image"]: _context(row, f"{told}, line {number}")
        for number, row in json_files.lines(
            told, ("image", "captions", "instances"), unique="image", lists=("captions", "instances")
        )
    }
    references = {
        str(row["question_id"]): row["text"]
        for _, row in json_files.lines(
            files.path(REFERENCE.format(language=language)), ("question_id", "text"), unique="question_id"
        )
    }
    keys = ("question_id", "image", "text", "category")
    asked = []
    for number, row in json_files.lines(path, keys, unique="question_id", allowed={"category": CATEGORIES}):
        identity = str(row["question_id"])
        for what, known in (
            ("reference answer", identity in references),
            ("context", row["image"] in contexts),
        ):
            if not known:
                raise BadInput(
                    f"the question {identity} has no {what}",
                    where=f"{path}, line {number}",
                    remedy="fetch the benchmark's three files of this language again",
                )
        image = json_files.image(files, path, row["image"], number)
        asked.append(
            Asked(
                benchmark="llava",
                language=language,
                item=identity,
                rotation=0,
                prompt=row["text"],
                question=row["text"],
                options=(),
                gold=references[identity],
                category=row["category"],
                image=image.content,
                image_sha256=image.sha256,
                details={"context": contexts[row["image"]]},
            )
        )
    return asked


def _context(row: dict[str, Any], where: str) -> str:
    """Captions, a blank line, and a line per box, as the judge is shown them.

    Raises:
        BadInput: these are no lists of captions and of boxes.
    """
    captions, boxes = row["captions"], row["instances"]
    if (
        not isinstance(captions, list)
        or not isinstance(boxes, list)
        or not all(isinstance(one, str) for one in captions)
    ):
        raise BadInput(
            "captions or instances are no list",
            where=where,
            remedy="captions are a list of texts, instances one of objects with category and bbox; fetch the file again",
        )
    whole = [json_files.checked(box, ("category", "bbox"), where) for box in boxes]
    lines = [f"{box['category']}: {box['bbox']}" for box in whole]
    return "\n".join(captions) + "\n\n" + "\n".join(lines)


def image_names(path: Path) -> list[str]:
    """The images that a file of questions names."""
    return [row["image"] for _, row in json_files.lines(path, ("image",))]


BENCHMARK = Benchmark(
    name="llava",
    title="LLaVA Test Set",
    file=FILE,
    companions=(CONTEXT, REFERENCE),
    image_names=image_names,
    languages=("en", "zh", "de", "fr", "es", "it", "pt"),
    size=90,
    questions=questions,
    readers={},
    figures=("relative", "rating"),
    item_figure="rating",
    speaks=True,
    protocol="pair",
    translated={FILE: ("text",), CONTEXT: ("captions",), REFERENCE: ("text",)},
)
