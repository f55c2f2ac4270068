"""A text parted into what is translated and what must stay as it is, and checks that it did.

Translation models mangle placeholders, markers and codes, so they are never shown any: `<image>`, option letters and
list numbers at the start of a line, boxes, addresses, code and line breaks stay outside. Numbers and letters
within a sentence must be read with it, so these are checked afterwards.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.translate.guarded import Reject, Translation

NUMBER_CHANGED = "number_changed"
LETTER_CHANGED = "letter_changed"

_KEPT = re.compile(
    r"""
    ```.*?``` | `[^`\n]+`                                       # code
    | <[^<>\s]{1,40}>                                           # <image>, <box>, <|end|>
    | https?://\S+
    | [\[(]\s*-?\d+(?:\.\d+)?(?:\s*,\s*-?\d+(?:\.\d+)?)+\s*[\])]   # boxes and points
    | \s*\n\s*(?:\(?[A-Z][.):：、．]\s+|\d{1,3}[.)]\s+|[-*•\#]+\s+)?  # a line's end, and the marker of the next
    | \A\s*(?:\(?[A-Z][.):：、．]\s+|\d{1,3}[.)]\s+|[-*•\#]+\s+)
    """,
    re.VERBOSE | re.DOTALL,
)
_LETTER_ALONE = re.compile(r"\s*\(?[A-Za-z]\)?[.。)]?\s*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'“(]?[A-ZÀ-ÞА-Я])|(?<=[。！？])(?=[^”」』）)\s])")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|No|vs|etc|e\.g|i\.e|approx)|\b[A-Z])\.$")
_NUMBER = re.compile(r"\d+(?:[.,'\u00a0\u202f٫٬]\d+)*")
_NAMED_LETTER = re.compile(
    r"(?:\b(?:option|answer|choice|letter)(?:\s+is)?:?\s+|\()([A-H])\b|(?<![\w'’.])([B-H])(?![\w'’])"
)


@dataclass(frozen=True)
class Piece:
    """A part of a text; the parts in their order are the text."""

    text: str
    translate: bool


def pieces(text: str, *, sentences: bool = True) -> list[Piece]:
    """The parts of a text. `sentences`: also part at sentence ends, for models that read one sentence."""
    if _LETTER_ALONE.fullmatch(text):
        return [Piece(text, False)]
    found: list[Piece] = []
    at = 0
    for match in _KEPT.finditer(text):
        found += _prose(text[at : match.start()], sentences)
        found.append(Piece(match[0], False))
        at = match.end()
    found += _prose(text[at:], sentences)
    return [piece for piece in found if piece.text]


def _prose(text: str, sentences: bool) -> list[Piece]:
    """Sentences, with the white space between them kept apart."""
    found: list[Piece] = []
    for part in _sentences(text) if sentences else [text]:
        inner = part.strip()
        # Numbers and signs alone are the same in every language.
        if not any(character.isalpha() for character in inner):
            found.append(Piece(part, False))
            continue
        start = part.index(inner)
        found += [
            Piece(part[:start], False),
            Piece(inner, True),
            Piece(part[start + len(inner) :], False),
        ]
    return found


def _sentences(text: str) -> list[str]:
    """The sentences of a line, each with the white space after it."""
    parts: list[str] = []
    at = 0
    for match in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text[: match.start()]):
            parts.append(text[at : match.end()])
            at = match.end()
    return [*parts, text[at:]]


def joined(parts: list[Piece], results: Mapping[str, Translation | Reject]) -> tuple[str | None, str]:
    """The text from the results for its pieces, or None and the reason."""
    written = []
    for part in parts:
        if not part.translate:
            written.append(part.text)
            continue
        result = results[part.text]
        if isinstance(result, Reject):
            return None, result.reason.value
        if why := changed(part.text, result.text):
            return None, why
        written.append(result.text)
    return "".join(written), ""


def changed(source: str, output: str) -> str:
    """Which of the things that a translation must carry over it did not: a reason, or "".

    Every number of the source stands in the output, in whatever digits and with whatever separators; the
    output may have more, since some languages write small numbers in digits. So does every option letter
    that the source names.
    """
    if not numbers(source) <= numbers(output):
        return NUMBER_CHANGED
    letters = {first or second for first, second in _NAMED_LETTER.findall(source)}
    plain = unicodedata.normalize("NFKC", output)
    if not all(re.search(rf"(?<![A-Za-z]){letter}(?![A-Za-z])", plain) for letter in letters):
        return LETTER_CHANGED
    return ""


def numbers(text: str) -> Counter[str]:
    """The numbers in digits, without separators, which differ between languages: 1,000.5 and 1.000,5 are one."""
    return Counter(
        "".join(str(unicodedata.decimal(character)) for character in found if character.isdecimal())
        for found in _NUMBER.findall(unicodedata.normalize("NFKC", text))
    )
