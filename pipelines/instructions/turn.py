"""One instruction: its parts, what a person would read and answer, and its translation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pipelines.translate.guarded import Reject, Translation
from pipelines.translate.pieces import changed

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
OPTIONS_COLLIDE = "options_collide"
"""Two options of a question became the same in translation, so it has no longer one right letter."""


@dataclass(frozen=True)
class Instruction:
    """A question about an image with its answer, in parts that are translated one by one.

    `options` and `choose` are empty unless `kind` is "choice"; the answer of a choice is a letter.
    """

    kind: Literal["open", "choice", "describe"]
    question: str
    options: tuple[str, ...]
    answer: str
    choose: str

    @property
    def texts(self) -> tuple[str, ...]:
        """The parts that are words of a language: all but a letter."""
        if self.kind == "choice":
            return self.question, *self.options, self.choose
        return self.question, self.answer

    @property
    def prompt(self) -> str:
        """What is asked: the question, and for a choice the lettered options and the request for a letter."""
        if self.kind != "choice":
            return self.question
        lettered = [f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=False)]
        return "\n".join([self.question, *lettered, self.choose])

    @property
    def reply(self) -> str:
        """What is answered: for a choice the option itself, which a small model learns before its letter."""
        return self.options[LETTERS.index(self.answer)] if self.kind == "choice" else self.answer


def translated(
    instruction: Instruction, results: Mapping[str, Translation | Reject]
) -> tuple[Instruction | None, str]:
    """The instruction from the results for its texts, or None and the reason."""
    words: list[str] = []
    for text in instruction.texts:
        result = results[text]
        if isinstance(result, Reject):
            return None, result.reason.value
        if why := changed(text, result.text):
            return None, why
        words.append(result.text)
    if instruction.kind != "choice":
        return Instruction(instruction.kind, words[0], (), words[1], ""), ""
    question, *options, choose = words
    if len(set(options)) < len(set(instruction.options)):
        return None, OPTIONS_COLLIDE
    return Instruction("choice", question, tuple(options), instruction.answer, choose), ""
