"""UniMM-Bench: 400 questions, 100 each from A-OKVQA, GQA, OKVQA and VQAv2, in this order in the published file.

A judge rates the answer from 1 to 5 against the expected one; the score is the mean over 5. The released script puts the
running mean in the place of a rating that it cannot read; here that is a failure, counted beside the score.

The file is a JSON list of objects with question, answer, image (a file's name), and where there are any
"Human Answers" and context (the rationale of A-OKVQA).
"""

from __future__ import annotations

from pathlib import Path

from pipelines.benchmarks import json_files
from pipelines.benchmarks.benchmark import Benchmark
from pipelines.benchmarks.files import Files
from pipelines.benchmarks.question import Asked
from pipelines.errors import BadInput

FILE = "unimm_{language}.json"
CATEGORIES = ("AOKVQA", "GQA", "OKVQA", "VQAv2")
PER_CATEGORY = 100


def questions(files: Files, language: str) -> list[Asked]:
    """The questions; a category is the entry's own, or follows from its place as in the published file.

    Raises:
        BadInput: an entry is malformed or names a missing image.
    """
    path = files.path(FILE.format(language=language))
    asked = []
    for place, row in json_files.entries(path, ("question", "answer", "image")):
        image = json_files.image(files, path, Path(row["image"]).name, place)
        category = row.get("category") or _category(place, path)
        human = str(row.get("Human Answers") or "").removeprefix("Human answers are:").strip(" []")
        asked.append(
            Asked(
                benchmark="unimm",
                language=language,
                item=place,
                rotation=0,
                prompt=row["question"],
                question=row["question"],
                options=(),
                gold=row["answer"],
                category=category,
                image=image.content,
                image_sha256=image.sha256,
                details={
                    "human_answers": human,
                    "rationale": str(row.get("context") or "") if category == "AOKVQA" else "",
                },
            )
        )
    return asked


def _category(place: str, path: Path) -> str:
    """The category of the entry at this place of the published list."""
    if not place.isdecimal():
        raise BadInput(
            "the entry has no category, which follows from the place in a list alone",
            where=f"{path}, entry {place}",
            remedy="give the file as it is published, a list; or put a `category` into each entry",
        )
    return CATEGORIES[min(int(place) // PER_CATEGORY, len(CATEGORIES) - 1)]


def image_names(path: Path) -> list[str]:
    """The images that a file of questions names."""
    return [Path(row["image"]).name for _, row in json_files.entries(path, ("image",))]


BENCHMARK = Benchmark(
    name="unimm",
    title="UniMM-Bench",
    file=FILE,
    image_names=image_names,
    languages=("en", "zh"),
    size=400,
    questions=questions,
    readers={},
    figures=("relative", "rating"),
    item_figure="rating",
    speaks=True,
    protocol="rating",
)
