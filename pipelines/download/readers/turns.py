"""Conversations: a list of messages becomes whole turns, question and answer, in their order."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from pipelines.download.reasons import Failure, Reason

Turns = list[tuple[str, str]]

_PERSON = frozenset({"human", "user"})
_MODEL = frozenset({"gpt", "assistant"})
_PLACEHOLDER = re.compile(r"\s*<image>\s*")


def turns_of(messages: Any) -> tuple[Turns, bool]:
    """The turns of messages `{"from": "human" or "gpt", "value": text}`, and whether they refer to an image.

    The placeholder `<image>` is taken out: where the image goes is the model's business. A message of the
    system before the first question is left out.

    Raises:
        Failure: the messages are not questions and answers in turn.
    """
    if not isinstance(messages, list) or not messages:
        raise Failure(Reason.CONVERSATION_MALFORMED, "no list of messages")
    said = [_message(message) for message in messages]
    if said and said[0][0] == "system":
        said = said[1:]
    if len(said) < 2 or len(said) % 2:
        raise Failure(Reason.CONVERSATION_MALFORMED, f"{len(said)} messages, not questions with answers")
    turns: Turns = []
    refers = False
    for (asker, question), (answerer, answer) in zip(said[::2], said[1::2], strict=True):
        if asker not in _PERSON or answerer not in _MODEL:
            raise Failure(
                Reason.CONVERSATION_MALFORMED, f"turn {len(turns) + 1} is from {asker!r} and {answerer!r}"
            )
        refers = refers or "<image>" in question
        question = _PLACEHOLDER.sub("\n", question).strip()
        if not question or not answer.strip():
            raise Failure(Reason.CONVERSATION_EMPTY_TURN, f"turn {len(turns) + 1}")
        turns.append((question, answer.strip()))
    return turns, refers


def _message(message: Any) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise Failure(Reason.CONVERSATION_MALFORMED, "a message is no object")
    speaker, value = message.get("from", message.get("role")), message.get("value", message.get("content"))
    if not isinstance(speaker, str) or not isinstance(value, str):
        raise Failure(Reason.CONVERSATION_MALFORMED, "a message has no speaker or no text")
    return speaker.lower(), value


def dump(turns: Sequence[tuple[str, str]]) -> bytes:
    """The turns as one text, the same for the same turns."""
    return json.dumps(turns, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def load(text: str) -> list[dict[str, str]]:
    """The turns that `dump` wrote."""
    return [{"question": question, "answer": answer} for question, answer in json.loads(text)]
