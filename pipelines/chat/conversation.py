"""A conversation with a model: what was shown and said so far, and the next answer.

Images stand in the turn before which they were shown, or where that question's `<image>` markers say. Each goes
through the vision encoder once, however many turns follow.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import NamedTuple

import torch
from PIL import Image
from tokenizers import Tokenizer

from models.chat_template import IMAGE_MARKER, Turn
from models.vision_language import VisionLanguageModel
from pipelines.chat.generation import Generation
from pipelines.errors import BadInput

LEAST_ROOM = 16
"""Tokens that an answer must have room for: a conversation is full before its answers are cut to nothing."""
_UNKNOWN = "<unk>"

Say = Callable[[str], None]
"""Is given the answer as far as it has come. What it raises ends the answer."""


class Answer(NamedTuple):
    """What the model said."""

    text: str
    cut: int | None
    """Tokens after which it was cut, if it did not come to its end."""


class Conversation:
    """Turns with one model. A question that fails, or is stopped, leaves no trace."""

    def __init__(self, model: VisionLanguageModel, generation: Generation) -> None:
        self.model, self.generation = model, generation
        self.turns: list[tuple[str, str]] = []
        self._seen: list[torch.Tensor] = []
        self._new = 0

    @property
    def images(self) -> int:
        """How many were shown."""
        return len(self._seen)

    @property
    def new_images(self) -> int:
        """How many were shown since the last question."""
        return self._new

    def show(self, image: Image.Image) -> None:
        """Let the model look at an image; the next question is about it too."""
        self._seen.append(self.model.see([image]))
        self._new += 1

    def forget_new_images(self) -> None:
        """Take back what was shown since the last question."""
        if self._new:
            del self._seen[-self._new :]
        self._new = 0

    def start_anew(self) -> None:
        """Forget everything."""
        self.turns, self._seen, self._new = [], [], 0

    def ask(self, question: str, say: Say | None = None) -> Answer:
        """The answer to the next question.

        Raises:
            BadInput: the question is empty, has markers for other images than were shown, or the conversation is full.
        """
        question = self._with_images(question)
        turns: list[Turn] = [*self.turns, (question, None)]
        encoded = self.model.chat.encode(turns, images=self.images)
        room = self._room(len(encoded.ids))
        streamer = Streamed(self.model.chat.decode, say) if say and self.generation.streams else None
        settings = self.generation.settings() | ({"streamer": streamer} if streamer else {})
        (tokens,) = self.model.generate_ids(
            [encoded.ids], torch.cat(self._seen) if self._seen else None, labels=[encoded.labels],
            max_new_tokens=room, beams=self.generation.beams, **settings,
        ).tolist()  # fmt: skip
        answer = Answer(
            shown(self.model.chat.decode(tokens)), None if self.model.chat.end_id in tokens else len(tokens)
        )
        self.turns.append((question, answer.text))
        self._new = 0
        return answer

    def unknown_words(self, question: str) -> list[str]:
        """The words of a question for which the model has no token: small models know few."""
        tokenizer = self.model.tokenizer
        if not isinstance(tokenizer, Tokenizer) or (unknown := tokenizer.token_to_id(_UNKNOWN)) is None:
            return []
        text = question.replace(IMAGE_MARKER, "")
        encoding = tokenizer.encode(text, add_special_tokens=False)
        words = [
            text[start:end]
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if token == unknown
        ]
        return list(dict.fromkeys(words))

    def _with_images(self, question: str) -> str:
        markers = question.count(IMAGE_MARKER)
        if not question.replace(IMAGE_MARKER, "").strip():
            raise BadInput("the question is empty", where="the question", remedy="ask something")
        if markers and markers != self._new:
            raise BadInput(
                f"the question has {markers} {IMAGE_MARKER} markers, and {self._new} images were shown since the last one",
                where="the question",
                remedy=f"write one {IMAGE_MARKER} for each new image, or none: then they come before the question",
            )  # fmt: skip
        # Only the first question of a conversation gets its images' markers from the template.
        return question if markers or not self._new else IMAGE_MARKER * self._new + "\n" + question

    def _room(self, used: int) -> int:
        """Tokens that the answer may have."""
        most = self.model.positions
        wanted = self.generation.max_new_tokens
        if most is None:
            return wanted
        if most - used < min(wanted, LEAST_ROOM):
            raise BadInput(
                f"the conversation is too long: it has {used} tokens with this question, and the model"
                f" was made for {most}, answer included",
                where=f"turn {len(self.turns) + 1}, {self.images} images of {self.model.image_tokens} tokens each",
                remedy="start anew, with fewer images or a shorter question",
            )
        return min(wanted, most - used)


class Streamed:
    """Hands an answer on while it grows: what `generate` of transformers calls a streamer."""

    def __init__(self, decode: Callable[[list[int]], str], say: Say) -> None:
        self._decode, self._say = decode, say
        self._ids: list[int] = []
        self._said = ""

    def put(self, value: torch.Tensor) -> None:
        """Take the next token; the prompt, which comes first and as a row, is none."""
        if value.dim() > 1:
            return
        self._ids += value.tolist()
        text = shown(self._decode(self._ids))
        # Half a character, of a token that is some bytes of one, comes with the next token.
        if text != self._said and text.startswith(self._said) and not text.endswith("\ufffd"):
            self._said = text
            self._say(text)

    def end(self) -> None:
        """The caller has the whole answer."""


def shown(text: str) -> str:
    """Words without control characters: a terminal would obey them."""
    return "".join(sign for sign in text if sign in "\n\t" or unicodedata.category(sign) != "Cc")
