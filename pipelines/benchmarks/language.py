"""In which language an answer is: a vote of scripts, then lingua among the languages that share the script.

Abstains where nothing can be told: option letters, digits, fewer than three letters of an alphabet.
A restricted detector cannot say "another language" within a script; one of another script it can.
"""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lingua import LanguageDetector

OTHER = "other"
"""A language that none of the given ones can be, by its script."""

_SCRIPTS = {
    "zh": {"CJK"},
    "ja": {"CJK", "HIRAGANA", "KATAKANA"},
    "ko": {"HANGUL"},
    "ar": {"ARABIC"},
    "ru": {"CYRILLIC"},
    "bn": {"BENGALI"},
    "el": {"GREEK"},
    "he": {"HEBREW"},
    "th": {"THAI"},
    "hi": {"DEVANAGARI"},
}
_LATIN = {"LATIN"}
_WEIGHTS = {"CJK": 3, "HANGUL": 2}
"""Letters of an alphabet that one character stands for, roughly."""
LEAST_WEIGHT = 3
LEAST_SHARE = 2 / 3


def scripts(language: str) -> set[str]:
    """The scripts that a language is written in; Latin where nothing else is known."""
    return _SCRIPTS.get(language, _LATIN)


def detect(text: str, languages: Sequence[str]) -> str | None:
    """The language of `text`: one of `languages` (ISO 639-1), OTHER, or None where it abstains."""
    votes: Counter[str] = Counter()
    for character in unicodedata.normalize("NFKC", text):
        if character.isalpha():
            script = unicodedata.name(character, "UNKNOWN").split(" ")[0]
            votes[script] += _WEIGHTS.get(script, 1)
    total = votes.total()
    if total < LEAST_WEIGHT:
        return None
    script, weight = votes.most_common(1)[0]
    if weight < LEAST_SHARE * total:
        return None
    candidates = [language for language in languages if script in scripts(language)]
    if not candidates:
        return OTHER
    if len(candidates) == 1:
        return candidates[0]
    found = _detector(tuple(sorted(candidates))).detect_language_of(text)
    return None if found is None else found.iso_code_639_1.name.lower()


@functools.cache
def _detector(languages: tuple[str, ...]) -> LanguageDetector:
    from lingua import IsoCode639_1, LanguageDetectorBuilder

    codes = [getattr(IsoCode639_1, language.upper()) for language in languages]
    return LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()
