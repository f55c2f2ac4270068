"""What the languages of the papers are called, for a model that is asked in words."""

from __future__ import annotations

PAPER_LANGUAGES = ("zh", "de", "fr", "es", "it", "pt", "ar", "tr", "ru")
"""Translated into from English: by VisCPM into zh, de, fr, es, it and pt; Parrot's are zh, pt, ar, tr and ru."""

_NAMES = {
    "ar": "Arabic", "bn": "Bengali", "de": "German", "en": "English", "es": "Spanish", "fr": "French",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "pl": "Polish",
    "pt": "Portuguese", "ru": "Russian", "th": "Thai", "tr": "Turkish", "vi": "Vietnamese",
    "zh": "Simplified Chinese",
}  # fmt: skip


def name_of(language: str) -> str:
    """The English name of a language, or its code where none stands here: models know the codes too."""
    return _NAMES.get(language, language)
