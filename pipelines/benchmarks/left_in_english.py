"""How much of a benchmark that was put into further languages stayed English there, since the translation guard rejected it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.benchmarks.benchmark import catalogue
from pipelines.benchmarks.json_files import lines
from pipelines.lake import manifest

SOURCE = "en"


@dataclass(frozen=True)
class Left:
    """Of the texts of one language."""

    texts: int
    english: int
    """Those that stand there word for word as in English."""

    @property
    def share(self) -> float:
        return self.english / self.texts if self.texts else 0.0


def left_in_english(table: Path) -> dict[str, Left]:
    """By language into which this table of benchmark files was translated; nothing where none was.

    Raises:
        BadInput: a file of the table is missing or malformed.
    """
    made = manifest.read(table)
    languages: list[str] = made.parameters.get("translate_into") or []
    if not languages:
        return {}
    patterns = catalogue()[made.parameters["benchmark"]].translated
    english = {pattern: list(_texts(table, pattern, SOURCE, keys)) for pattern, keys in patterns.items()}
    found = {}
    for language in languages:
        pairs = [
            pair
            for pattern, keys in patterns.items()
            for pair in zip(english[pattern], _texts(table, pattern, language, keys), strict=True)
        ]
        found[language] = Left(len(pairs), sum(before == after for before, after in pairs))
    return found


def _texts(table: Path, pattern: str, language: str, keys: tuple[str, ...]) -> Iterator[str]:
    for _, row in lines(manifest.file(table, pattern.format(language=language)), keys, lists=keys):
        yield from _strings(row, keys)


def _strings(row: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    for key in keys:
        value = row[key]
        yield from [value] if isinstance(value, str) else value
