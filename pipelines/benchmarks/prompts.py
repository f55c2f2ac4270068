"""How a question with options is put to a model. The prompt is part of what a score means."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.benchmarks.mmmb import LETTERS

ANSWER_REQUESTS = {
    "en": "Answer with the option's letter.",
    "zh": "请用选项的字母回答。",
    "pt": "Responda com a letra da opção correta.",
    "ar": "أجب بحرف الخيار الصحيح.",
    "tr": "Doğru seçeneğin harfiyle yanıtlayın.",
    "ru": "Ответьте буквой правильного варианта.",
}
"""By language: the request for a letter, where the benchmark's table does not bring its own."""


def choice_prompt(question: str, options: Sequence[str], *, request: str, hint: str = "") -> str:
    """Hint (if any), question, lettered options, and the request for a letter, a line each."""
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([*([hint] if hint.strip() else []), question, *lines, request])
