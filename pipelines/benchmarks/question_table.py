"""Open questions: answered in words, with the right answer known in every language.

A parquet file with the columns index, image (bytes), question, topic, answers (a struct: language -> text).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.benchmarks.question import Concept
from pipelines.errors import BadInput

COLUMNS = ("index", "image", "question", "topic", "answers")


@dataclass(frozen=True)
class OpenQuestion:
    """A question about an image; `answers` holds the right one by language."""

    index: str
    image: bytes
    question: str
    topic: str
    answers: dict[str, str]


def load(path: Path) -> list[OpenQuestion]:
    """The questions in the file's order.

    Raises:
        BadInput: the file is not such a table; the message names the row.
    """
    try:
        rows = pq.read_table(path).to_pylist()
    except FileNotFoundError:
        raise BadInput("the benchmark file does not exist", where=path, remedy="check the path") from None
    except pa.ArrowInvalid as error:
        raise BadInput(
            f"the benchmark file is not parquet: {error}", where=path, remedy="make or fetch it again"
        ) from None
    if not rows:
        raise BadInput("the benchmark file has no questions", where=path, remedy="make or fetch it again")
    if missing := [column for column in COLUMNS if column not in rows[0]]:
        raise BadInput(
            f"the columns {', '.join(missing)} are missing",
            where=path,
            remedy=f"the columns are {', '.join(COLUMNS)}",
        )
    for number, row in enumerate(rows):
        empty = [column for column in COLUMNS if not row[column]]
        if empty or any(not text for text in row["answers"].values()):
            raise BadInput(
                f"the row has nothing in: {', '.join(empty) or 'answers of some language'}",
                where=f"{path}, row {number} (index {row['index']!r})",
                remedy="fill it in, or take the row out",
            )
    return [OpenQuestion(**{column: row[column] for column in COLUMNS}) for row in rows]


def concepts(questions: Iterable[OpenQuestion]) -> dict[str, list[Concept]]:
    """By topic, every value that is the right answer to some question: what an answer can be told from."""
    found: dict[str, dict[Concept, None]] = {}
    for question in questions:
        found.setdefault(question.topic, {})[tuple(sorted(question.answers.items()))] = None
    return {topic: list(values) for topic, values in found.items()}
