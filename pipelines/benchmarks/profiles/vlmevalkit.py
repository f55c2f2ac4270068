"""VLMEvalKit's exact matching, at commit e8e78f05 (August 2026), and as Parrot's fork had it in August 2024.

Without a judge, so an answer that the rules cannot resolve is wrong, as with the tool's `exact_matching`. Kept on
purpose: tables pass through pandas there, so an option or an answer such as "None" or "NA" is lost; a
letter counts among the last four words only; full-width signs are letters of a word. In the fork tables pass through Excel's
format too, in which a text that begins with "=" is a formula, and comes back as 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pipelines.benchmarks.question import LETTERS

READ_AS_MISSING = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
    | {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
"""Cells that pandas reads as no value by default."""
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
NO_ANSWER = "Failed to obtain answer via API"
SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
LAST_WORDS = 4
_STATED = re.compile(r"(?:correct\s+)?answer\s+is\s+\**([ABCD])\**", re.IGNORECASE)

Found = tuple[str | None, str]


def letter(answer: str, options: Sequence[str]) -> Found:
    """The letter by today's rules; "Z" is a refusal, which is resolved and wrong."""
    return _letter(answer, options, today=True)


def letter_of_august_2024(answer: str, options: Sequence[str]) -> Found:
    """As `letter`, without the rules of the last words, of the stated letter and of the answer's length."""
    return _letter(answer, options, today=False)


def out_of_a_sheet(text: str) -> str:
    """What the fork reads back of a text that it wrote into a sheet: of a formula, its value, which nobody computed."""
    return "0" if text.startswith("=") or (text.startswith("{=") and text.endswith("}")) else text


def _letter(answer: str, options: Sequence[str], *, today: bool) -> Found:
    if answer in READ_AS_MISSING:
        answer = "nan"
    kept: Callable[[str], str] = str if today else out_of_a_sheet
    answer = kept(answer)
    choices = {
        letter: kept(text)
        for letter, text in zip(LETTERS, options, strict=False)
        if text not in READ_AS_MISSING
    }
    if found := _by_letter(answer, choices, today=today):
        return found
    said = answer.lower()
    if today and len(said) > 2 * sum(map(len, choices.values())):
        return None, "unresolved"
    held = [letter for letter, text in choices.items() if text.lower() in said]
    return (held[0], "option_text") if len(held) == 1 else (None, "unresolved")


def _by_letter(answer: str, choices: dict[str, str], *, today: bool) -> Found | None:
    if NO_ANSWER in answer:
        return None
    if any(refusal in answer for refusal in REFUSALS):
        return "Z", "refusal"
    words = answer.translate(SEPARATORS).split()
    held = [letter for letter in choices if letter in words]
    if len(held) == 1:
        if not today or words.index(held[0]) >= len(words) - LAST_WORDS:
            return held[0], "letter"
    elif not held and "Z" in words:
        return "Z", "refusal"
    if today and (stated := _STATED.search(answer)) and stated[1].upper() in choices:
        return stated[1].upper(), "announced"
    return None


_MARKS = (
    ";",
    "/",
    "[",
    "]",
    '"',
    "{",
    "}",
    "(",
    ")",
    "=",
    "+",
    "\\",
    "_",
    "-",
    ">",
    "<",
    "@",
    "`",
    ",",
    "?",
    "!",
)
_NUMBER_COMMA = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"(?<!\d)\.(?!\d)")
_FULL_STOPS_REMOVED = 32
"""The tool passes a flag where the count of replacements stands: no more than this many full stops go."""


def yes_or_no(answer: str) -> Found:
    """The word yes or no, whichever of the two stands in the answer alone."""
    words = without_punctuation(answer.lower()).split()
    held = [word for word in ("yes", "no") if word in words]
    return (held[0], "word") if len(held) == 1 else (None, "unresolved")


def yes_or_no_of_august_2024(answer: str) -> Found:
    """As `yes_or_no`, of what comes out of a sheet."""
    return yes_or_no(out_of_a_sheet(answer))


def without_punctuation(text: str) -> str:
    """VQA's punctuation rule as the tool has it: a mark goes where a space is beside any of its kind, else it is a space."""
    result = text
    for mark in _MARKS:
        beside = f"{mark} " in text or f" {mark}" in text or _NUMBER_COMMA.search(text)
        result = result.replace(mark, "" if beside else " ")
    return _FULL_STOP.sub("", result, count=_FULL_STOPS_REMOVED)
