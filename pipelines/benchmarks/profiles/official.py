"""The rules of the benchmarks' own scripts: ScienceQA as LLaVA scores it (commit c121f043), MME, IGLUE's two tasks."""

from __future__ import annotations

import re
from collections.abc import Sequence

Found = tuple[str | None, str]
_STATED = re.compile(r"The answer is ([A-Z]).")


def scienceqa_letter(answer: str, options: Sequence[str]) -> Found:
    """The letter alone, a label such as "B. ", or the only "The answer is B" with a character behind it."""
    letters = "ABCDE"
    if answer in tuple(letters):
        found, how = answer, "letter"
    elif len(answer) >= 3 and answer[0] in letters and answer[1:3] == ". ":
        found, how = answer[0], "label"
    else:
        stated: list[str] = _STATED.findall(answer)
        if len(stated) != 1:
            return None, "unresolved"
        found, how = stated[0], "announced"
    return (found, how) if found in letters[: len(options)] else (None, "unresolved")


def yes_or_no(answer: str) -> Found:
    """MME's own tool: the whole answer, or yes before no within its first four characters."""
    said = answer.lower()
    if said in ("yes", "no"):
        return said, "word"
    for word in ("yes", "no"):
        if word in said[:4]:
            return word, "prefix"
    return None, "unresolved"


def exact(answer: str) -> Found:
    """IGLUE's way with xGQA and XVNLI: the answer as it stands, capitals and all."""
    return (answer, "exact") if answer else (None, "unresolved")
