"""Our own rules for letters: see `pipelines.benchmarks.extraction`."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.benchmarks.extraction import choice


def letter(answer: str, options: Sequence[str]) -> tuple[str | None, str]:
    """The option that the answer chooses, in any of the languages, or None."""
    found = choice(answer, options)
    return found.letter, found.how
