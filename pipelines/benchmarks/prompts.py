"""How a question with options is put to a model. The prompt is part of what a score means."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.benchmarks.mmmb import LETTERS
from pipelines.errors import BadInput

ANSWER_REQUESTS = {
    "en": "Answer with the letter of the right option.",
    "zh": "请用正确选项的字母回答。",
    "pt": "Responda com a letra da opção correta.",
    "ar": "أجب بحرف الخيار الصحيح.",
    "tr": "Doğru seçeneğin harfiyle yanıtlayın.",
    "ru": "Ответьте буквой правильного варианта.",
}
"""By language: the request for a letter; that of the world's instructions where it speaks the language."""


def choice_prompt(language: str, question: str, options: Sequence[str], *, hint: str = "") -> str:
    """Hint (if any), question, lettered options, and the request for a letter, a line each.

    Raises:
        BadInput: there is no request in this language.
    """
    if language not in ANSWER_REQUESTS:
        raise BadInput(
            f"there is no request for a letter in the language {language!r}",
            where="pipelines/benchmarks/prompts.py",
            remedy="add one to ANSWER_REQUESTS",
        )
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([*([hint] if hint.strip() else []), question, *lines, ANSWER_REQUESTS[language]])
