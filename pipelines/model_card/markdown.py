"""What all cards share: their name, the place of the scores, and Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

FILE = "README.md"
SCORES_BEGIN, SCORES_END = "<!-- scores -->", "<!-- end of scores -->"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells stand as they are."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def escaped(words: str) -> str:
    """Words as Markdown shows them, one line of them."""
    return re.sub(r"([|\\`*_<>\[\]])", r"\\\1", " ".join(str(words).split()))
