"""What can be told of a caption alone: its words, whether it repeats itself, whether it was cut, its language."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lingua import LanguageDetector

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0002ffff]|[^\W_]+")
_FEWEST_WORDS = 6
"""Shorter captions repeat a word or two without being repetitive."""
_OPEN, _CLOSE = "([{（【《「『“", ")]}）】》」』”"
_CUT_ENDS = (
    ",",
    "，",
    "、",
    ";",
    "；",
    ":",
    "：",
    "…",
    "...",
    "-",
    "–",
    "—",
    "&",
    "+",
    "/",
    "的",
    "和",
    "与",
    "或",
)
_LAST_WORDS = frozenset(
    # Words after which a phrase goes on: articles, conjunctions and prepositions.
    [
        "a",
        "an",
        "the",
        "and",
        "or",
        "of",
        "with",
        "to",
        "in",
        "on",
        "at",
        "for",
        "from",
        "by",
        "as",
        "is",
        "are",
        "its",
        "his",
        "her",
        "their",
        "der",
        "die",
        "das",
        "ein",
        "eine",
        "einen",
        "und",
        "oder",
        "mit",
        "von",
        "zu",
        "im",
        "am",
        "für",
        "le",
        "la",
        "les",
        "un",
        "une",
        "des",
        "et",
        "ou",
        "de",
        "du",
        "avec",
        "pour",
        "dans",
        "au",
        "aux",
        "el",
        "los",
        "las",
        "una",
        "unos",
        "y",
        "o",
        "con",
        "para",
        "del",
        "en",
        "il",
        "lo",
        "gli",
        "uno",
        "e",
        "di",
        "da",
        "per",
        "nel",
        "della",
        "os",
        "um",
        "uma",
        "com",
        "do",
        "da",
        "no",
        "na",
        "dos",
        "das",
        "ve",
        "ile",
        "bir",
        "için",
        "и",
        "в",
        "на",
        "с",
        "из",
        "для",
        "по",
        "к",
        "от",
    ]
)


def words(text: str) -> list[str]:
    """The words in lower case without punctuation; of Chinese, Japanese and Korean, the characters."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def repeated(of_text: Sequence[str]) -> float:
    """Share of the pairs of neighbouring words that came before in the same text; 0 for a short text."""
    if len(of_text) < _FEWEST_WORDS:
        return 0.0
    pairs = list(pairwise(of_text))
    return 1 - len(set(pairs)) / len(pairs)


def is_cut(text: str, of_text: Sequence[str]) -> bool:
    """Whether the text breaks off: it ends within a bracket, at a comma or dots, or at a word that wants another."""
    shown = text.rstrip()
    if not of_text or shown.endswith(_CUT_ENDS):
        return True
    if sum(shown.count(one) for one in _OPEN) > sum(shown.count(one) for one in _CLOSE):
        return True
    return shown[-1].isalnum() and len(of_text) > 1 and of_text[-1] in _LAST_WORDS


def languages(texts: Sequence[str], candidates: Sequence[str]) -> list[tuple[str | None, float]]:
    """The most likely language of each text among `candidates`, and how sure lingua is: 0 to 1.

    None where nothing can be told, as of digits.
    """
    if not candidates:
        return [(None, 0.0)] * len(texts)
    found = _detector(tuple(sorted(candidates))).compute_language_confidence_values_in_parallel(list(texts))
    told: list[tuple[str | None, float]] = []
    for values in found:
        best = values[0] if values else None
        if best is None or best.value <= 1 / len(candidates) + 1e-6:
            told.append((None, 0.0))
        else:
            told.append((best.language.iso_code_639_1.name.lower(), float(best.value)))
    return told


@functools.cache
def _detector(candidates: tuple[str, ...]) -> LanguageDetector:
    from lingua import IsoCode639_1, LanguageDetectorBuilder

    codes = [getattr(IsoCode639_1, language.upper()) for language in candidates]
    if len(codes) == 1:
        # lingua wants a choice; English is what a foreign caption most often is.
        codes.append(IsoCode639_1.EN if candidates != ("en",) else IsoCode639_1.ZH)
    return LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()


def known_languages() -> set[str]:
    """The languages that lingua can tell."""
    from lingua import Language

    return {language.iso_code_639_1.name.lower() for language in Language.all()}
