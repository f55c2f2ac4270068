"""BLEU as it must be counted in each target language: words where there are words, characters where not."""

from __future__ import annotations

_TOKENIZERS = {"zh": "zh", "ja": "char", "th": "char", "lo": "char", "km": "char", "my": "char"}


def tokenizer_for(language: str) -> str:
    """sacrebleu's tokenizer; of scripts without spaces, those that need no dictionary."""
    return _TOKENIZERS.get(language, "13a")
