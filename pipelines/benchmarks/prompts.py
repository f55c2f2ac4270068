"""How questions are put to a model. The prompt is part of what a score means: tests pin every one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.benchmarks import json_files
from pipelines.benchmarks.files import REQUESTS, Files
from pipelines.benchmarks.question import LETTERS
from pipelines.errors import BadInput

ANSWER_REQUESTS = {
    "en": "Answer with the option's letter.",
    "zh": "请用选项的字母回答。",
    "pt": "Responda com a letra da opção correta.",
    "ar": "أجب بحرف الخيار الصحيح.",
    "tr": "Doğru seçeneğin harfiyle yanıtlayın.",
    "ru": "Ответьте буквой правильного варианта.",
    "de": "Antworte mit dem Buchstaben der richtigen Option.",
    "fr": "Répondez par la lettre de la bonne option.",
    "es": "Responde con la letra de la opción correcta.",
    "it": "Rispondi con la lettera dell'opzione corretta.",
}
"""By language: the request for a letter, where the benchmark's table does not bring its own."""


def request(files: Files, language: str, *, beside: Path) -> str:
    """The request for a letter: that of the table which gives the file `beside`, as the models' instructions had it, or the
    usual one. Another table's would make a benchmark's prompt depend on what else is asked.

    Raises:
        BadInput: there is none in this language, or the table's own cannot be read.
    """
    own = json_files.words(files.beside(beside, REQUESTS))
    if language in own or language in ANSWER_REQUESTS:
        return own.get(language) or ANSWER_REQUESTS[language]
    raise BadInput(
        f"there is no request for a letter in the language {language!r}",
        where=", ".join(map(str, files.tables)),
        remedy=f"add a {REQUESTS} to the table, or the language to pipelines/benchmarks/prompts.py",
    )


def prompt_in(prompts: Mapping[str, str], language: str, path: Path) -> str:
    """The benchmark's prompt for the questions of a file.

    Raises:
        BadInput: there is none in this language: a file is named after a language that the benchmark does not have.
    """
    if language in prompts:
        return prompts[language]
    raise BadInput(
        f"there is no prompt in the language {language!r}",
        where=path,
        remedy=f"a file is named after its language, one of {', '.join(prompts)}; correct the name or leave the file out",
    )


def choice_prompt(question: str, options: Sequence[str], *, request: str, hint: str = "") -> str:
    """Hint (if any), question, lettered options, and the request for a letter, a line each."""
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([*([hint] if hint.strip() else []), question, *lines, request])
