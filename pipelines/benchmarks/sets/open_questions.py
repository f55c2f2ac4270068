"""Open questions of the procedural world: answered in words, with the right value known in every language."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pipelines.benchmarks import question_table
from pipelines.benchmarks.benchmark import Benchmark, Reading, Row
from pipelines.benchmarks.extraction import open_answer
from pipelines.benchmarks.files import Files
from pipelines.benchmarks.question import Asked
from pipelines.errors import BadInput

FILE = "open_{language}.parquet"


def questions(files: Files, language: str) -> list[Asked]:
    """The questions, each with all values of its topic.

    Raises:
        BadInput: the file is malformed, or a question has no answer in its own language.
    """
    path = files.path(FILE.format(language=language))
    table = question_table.load(path)
    values = {topic: tuple(found) for topic, found in question_table.concepts(table).items()}
    if without := [one.index for one in table if language not in one.answers]:
        raise BadInput(
            f"the question {without[0]!r} has no answer in its own language {language!r}",
            where=path,
            remedy="make the benchmark table again",
        )
    return [
        Asked(
            benchmark="open",
            language=language,
            item=one.index,
            rotation=0,
            prompt=one.question,
            question=one.question,
            options=(),
            gold=one.answers[language],
            category=one.topic,
            image=one.image,
            image_sha256=hashlib.sha256(one.image).hexdigest(),
            concept=tuple(sorted(one.answers.items())),
            candidates=values[one.topic],
        )
        for one in table
    ]


def read(asked: Asked, answer: str) -> Reading:
    """Right if the right value is named alone, in whatever language."""
    found = open_answer(answer, asked.concept, asked.candidates)
    return Reading(answer if found.resolved else None, "value", found.right, found.languages)


def values(rows: Sequence[Row]) -> dict[str, float]:
    asked, reading = rows[0]
    return {
        "content": float(reading.right),
        "content_in_asked_language": float(reading.right and reading.languages == {asked.language}),
        "unresolved": float(reading.said is None),
    }


BENCHMARK = Benchmark(
    name="open",
    title="Open questions",
    file=FILE,
    languages=("en", "zh"),
    questions=questions,
    readers={"robust": read},
    values=values,
    figures=("content", "content_in_asked_language", "unresolved"),
    speaks=True,
)
