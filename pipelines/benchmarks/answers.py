"""The answers table: what a model said to every question of a suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.benchmarks.suite import Asked, Key
from pipelines.lake import manifest

FILE = "answers.parquet"
SCHEMA = pa.schema(
    [
        ("benchmark", pa.string()),
        ("language", pa.string()),
        ("item", pa.string()),
        ("rotation", pa.int32()),
        ("question", pa.string()),
        ("options", pa.list_(pa.string())),
        ("gold", pa.string()),
        ("answer", pa.string()),
        ("category", pa.string()),
        ("image_sha256", pa.string()),
    ]
)


class Answer(TypedDict):
    """One row. `gold` is the right letter, or the right answer in the question's language."""

    benchmark: str
    language: str
    item: str
    rotation: int
    question: str
    options: list[str]
    gold: str
    answer: str
    category: str
    image_sha256: str


def write(asked: Sequence[Asked], said: Sequence[str], file: Path) -> None:
    """One row per question asked, in their order."""
    rows = [
        Answer(
            benchmark=one.benchmark,
            language=one.language,
            item=one.item,
            rotation=one.rotation,
            question=one.question,
            options=list(one.options),
            gold=one.gold,
            answer=answer,
            category=one.category,
            image_sha256=one.image_sha256,
        )
        for one, answer in zip(asked, said, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file)


def read(table: Path) -> dict[Key, Answer]:
    """The rows of an answers table by benchmark, language, item and rotation."""
    rows: list[Answer] = pq.read_table(manifest.file(table, FILE)).to_pylist()
    return {(row["benchmark"], row["language"], row["item"], row["rotation"]): row for row in rows}
