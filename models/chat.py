"""The chat format (ChatML, as Qwen models use it) and the label mask: loss on the answers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
IMAGE = "<|image|>"
"""Stands for one visual token; a question about an image holds as many as the bridge gives."""
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, IMAGE)
IGNORED = -100
"""Label of a position that is not supervised."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation, and their labels: the id where it is supervised, else -100."""

    ids: list[int]
    labels: list[int]


def prompt(question: str, *, image_tokens: int = 0, context: str = "") -> str:
    """A user's turn and the opening of the assistant's.

    What the question is about comes first: an image's tokens, or the words that stand in for it.
    """
    about = IMAGE * image_tokens + context
    return f"{TURN_START}user\n{about}{chr(10) if about else ''}{question}{TURN_END}\n{TURN_START}assistant\n"


def padding_token(tokenizer: Tokenizer) -> int:
    """The id that fills rows up: the end of text, which no answer holds."""
    return token_id(tokenizer, END_OF_TEXT)


def token_id(tokenizer: Tokenizer, mark: str) -> int:
    """The id of a mark of the chat format.

    Raises:
        KeyError: the tokenizer was made without the chat format.
    """
    token = tokenizer.token_to_id(mark)
    if token is None:
        raise KeyError(f"the tokenizer lacks {mark}")
    return token


def encode_conversation(
    tokenizer: Tokenizer, turns: Sequence[tuple[str, str]], *, image_tokens: int = 0, context: str = ""
) -> Encoded:
    """A conversation of (question, answer) turns; the image or context belongs to the first.

    Supervised are the answers' tokens and the mark that ends each; nothing else.
    """
    ids: list[int] = []
    labels: list[int] = []
    for index, (question, answer) in enumerate(turns):
        asked = (
            prompt(question, image_tokens=image_tokens, context=context) if index == 0 else prompt(question)
        )
        opening = tokenizer.encode(asked, add_special_tokens=False).ids
        reply = tokenizer.encode(answer + TURN_END, add_special_tokens=False).ids
        closing = tokenizer.encode("\n", add_special_tokens=False).ids
        ids += opening + reply + closing
        labels += [IGNORED] * len(opening) + reply + [IGNORED] * len(closing)
    return Encoded(ids, labels)
