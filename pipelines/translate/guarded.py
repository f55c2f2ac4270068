"""Translation behind a guard: every text comes back translated, or rejected for a named reason.

Neural translation fails loudly as rarely as it fails often: of spoken Japanese put into Chinese by
M2M-100, 3 % were runaway repetitions or empty. What fails here is never used, and always counted.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pipelines.translate.spec import GuardLimits


class Reason(StrEnum):
    """Why a translation was rejected. Unfinished: cut off, or the source is longer than the model reads.

    No answer: a translator behind a server refused this text, or failed at it however often it was asked.
    """

    EMPTY = "empty"
    UNFINISHED = "unfinished"
    UNKNOWN_PIECE = "unknown_piece"
    REPETITION = "runaway_repetition"
    SCRIPT = "wrong_script"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    NO_ANSWER = "no_answer"


@dataclass(frozen=True)
class Translation:
    """A text and its translation."""

    source: str
    text: str


@dataclass(frozen=True)
class Reject:
    """A text whose translation must not be used, what the model wrote, and why it was rejected."""

    source: str
    output: str
    reason: Reason


class ModelOutput(Protocol):
    @property
    def text(self) -> str: ...
    @property
    def finished(self) -> bool: ...
    @property
    def failure(self) -> str: ...


class TranslatesTexts(Protocol):
    """What the guard asks of a translator; `models.translator.Translator` is one."""

    def translate(self, texts: Sequence[str], source: str, target: str) -> Sequence[ModelOutput]: ...


TEXTS_PER_CALL = 2048
"""Between two reports of progress; large enough that batches of tokens are full."""
UNKNOWN_MARK = "⁇"
"""What sentencepiece writes for a token that it has no piece for."""

_PHRASE = r"([\W_]{1,39}[^\W_].{0,38}?|[^\W_].{1,39}?)"
_LANGUAGES_OF_SCRIPTS = {
    "CJK": "zh",
    "CJK HIRAGANA KATAKANA KATAKANA-HIRAGANA": "ja",
    "HANGUL CJK": "ko",
    "CYRILLIC": "ba be bg kk mk mn ru sr uk",
    "ARABIC": "ar fa ps sd ur",
    "DEVANAGARI": "hi mr ne",
    "HEBREW": "he yi",
    "GREEK": "el",
    "ARMENIAN": "hy",
    "GEORGIAN": "ka",
    "ETHIOPIC": "am",
    "BENGALI": "bn",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "ORIYA": "or",
    "SINHALA": "si",
    "TAMIL": "ta",
    "TELUGU": "te",
    "THAI": "th",
    "LAO": "lo",
    "KHMER": "km",
    "MYANMAR": "my",
}
_SCRIPTS = {
    language: frozenset(scripts.split())
    for scripts, languages in _LANGUAGES_OF_SCRIPTS.items()
    for language in languages.split()
}
"""First words of Unicode character names, per language; every other language is written in LATIN."""
_LATIN = frozenset({"LATIN"})


def translate_guarded(
    translator: TranslatesTexts, texts: Sequence[str], source: str, target: str, limits: GuardLimits
) -> list[Translation | Reject]:
    """One result per text, in the order of `texts`.

    Each distinct text is translated once, and the translator is given them sorted: the result for a
    text depends on the set of texts alone, not on their order or number.
    """
    distinct = sorted({text for text in texts if text.strip()})
    judged: dict[str, Translation | Reject] = {}
    if distinct:
        outputs = translator.translate(distinct, source, target)
        for text, output in zip(distinct, outputs, strict=True):
            reason = (
                Reason.NO_ANSWER
                if output.failure
                else fault(text, output.text, target, limits, finished=output.finished)
            )
            judged[text] = (
                Translation(text, output.text)
                if reason is None
                else Reject(text, output.text or output.failure, reason)
            )
    # Nothing can be translated from an empty text, and models make something up for it.
    return [judged[text] if text in judged else Reject(text, "", Reason.EMPTY) for text in texts]


def translate_all(
    translator: TranslatesTexts,
    texts: Iterable[str],
    source: str,
    target: str,
    limits: GuardLimits,
    done: Callable[[int], None],
) -> dict[str, Translation | Reject]:
    """The result for each distinct text, translated in parts of similar length; `done` is told of each part."""
    ordered = sorted(set(texts), key=lambda text: (len(text), text))
    results: dict[str, Translation | Reject] = {}
    for start in range(0, len(ordered), TEXTS_PER_CALL):
        part = ordered[start : start + TEXTS_PER_CALL]
        results.update(zip(part, translate_guarded(translator, part, source, target, limits), strict=True))
        done(len(part))
    return results


def fault(
    source: str, output: str, target: str, limits: GuardLimits, *, finished: bool = True
) -> Reason | None:
    """Why the output must not stand for the source in the language `target`, or None."""
    if not output.strip():
        return Reason.EMPTY if finished else Reason.UNFINISHED
    if repeats(output, limits.most_repetitions) and not repeats(source, limits.most_repetitions):
        return Reason.REPETITION
    if not finished:
        return Reason.UNFINISHED
    if UNKNOWN_MARK in output and UNKNOWN_MARK not in source:
        return Reason.UNKNOWN_PIECE
    # Numbers and codes have no letters to tell by, and stay as they are.
    has_letters = any(character.isalpha() for character in source + output)
    if has_letters and script_share(output, target) < limits.least_script_share:
        return Reason.SCRIPT
    source_bytes, output_bytes = len(source.encode()), len(output.encode())
    if output_bytes + limits.length_slack < limits.least_length_ratio * source_bytes:
        return Reason.TOO_SHORT
    if output_bytes - limits.length_slack > limits.most_length_ratio * source_bytes:
        return Reason.TOO_LONG
    return None


def repeats(text: str, times: int) -> bool:
    """Whether a phrase of 2 to 40 characters stands more than `times` times in direct succession.

    A phrase holds a letter or digit, since rows of dots and dashes are punctuation. Of a single
    character, two make a phrase: many languages double and triple letters.
    """
    return re.search(_PHRASE + rf"\1{{{times}}}", text, re.DOTALL) is not None


def script_share(text: str, language: str) -> float:
    """Share of the letters of `text` that the language is written in; 0 if it has no letters."""
    scripts = _SCRIPTS.get(language, _LATIN)
    letters = [character for character in text if character.isalpha()]
    fitting = sum(_script(letter) in scripts for letter in letters)
    return fitting / len(letters) if letters else 0.0


@functools.cache
def _script(letter: str) -> str:
    """The first word of the letter's Unicode name, which is its script."""
    return unicodedata.name(letter, "").removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ").split(" ")[0]
