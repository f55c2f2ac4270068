"""Chat templates: a conversation as token ids, with labels on the answers only.

A template is a list of pieces: marks (single tokens, by name), texts, and images. Texts are encoded with the
tokenizer's special tokens switched off: a caption from the web that says `<|im_end|>` ends nothing. Which tokens
are supervised is read off character offsets, so that it holds for any tokenizer, whatever it does to spaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tokenizers import Tokenizer

from models.chat import IGNORED, IMAGE, Encoded

Name = Literal["chatml", "vicuna", "llama3", "plain", "cpm_bee"]
IMAGE_MARKER = "<image>"
"""Stands for an image in a question, as in LLaVA's data; without one, images come before the first question."""
IMAGE_PLACE = -200
"""Stands for one visual token where the tokenizer has no token for it."""
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

Turn = tuple[str, str | None]
"""A question, and its answer; None where the model shall give it."""


@dataclass(frozen=True)
class Mark:
    """A special token."""

    token: str
    supervised: bool = False


@dataclass(frozen=True)
class Text:
    """Words. From the character `answer` on they are supervised; None: nowhere."""

    words: str
    answer: int | None = None


@dataclass(frozen=True)
class Picture:
    """The places of one image's visual tokens."""


Piece = Mark | Text | Picture


class Chat(Protocol):
    """Makes token ids of conversations for one model."""

    image_id: int
    """Stands at each place that a visual token will take."""
    pad_id: int
    end_id: int
    """Ends an answer."""
    learns_every_answer: bool
    """Whether all answers of a conversation are supervised; else the last alone, and the others are its context."""

    def encode(self, turns: Sequence[Turn], *, images: int = 0, context: str = "") -> Encoded:
        """The conversation; the last turn may be without its answer, which the model will give."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The words of an answer."""
        ...


class TemplateChat:
    """A named template over a `tokenizers` tokenizer."""

    learns_every_answer = True

    def __init__(
        self, tokenizer: Tokenizer, template: Name, *, system: str = "", image_tokens: int = 0
    ) -> None:
        """`image_tokens`: visual tokens per image.

        Raises:
            KeyError: the tokenizer lacks a mark of the template.
        """
        self.tokenizer, self.template, self.system = tokenizer, template, system
        self.image_tokens = image_tokens
        # A copy: others may want special tokens in their texts to count.
        self._words = Tokenizer.from_str(tokenizer.to_str())
        self._words.encode_special_tokens = True
        self.end = _end(tokenizer, template)
        self.end_id = self._id(self.end)
        self.pad_id = self._pad()
        known = tokenizer.token_to_id(IMAGE)
        self.image_id = IMAGE_PLACE if known is None else known

    def _id(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise KeyError(f"the tokenizer lacks {token}, which the template {self.template!r} needs")
        return int(found)

    def _pad(self) -> int:
        # Each must differ from the end of an answer where it can: padding must not look like one.
        for token in ("<|endoftext|>", "<|finetune_right_pad_id|>", "<pad>", "<unk>", "</s>"):
            found = self.tokenizer.token_to_id(token)
            if found is not None:
                return int(found)
        return self.end_id

    def encode(self, turns: Sequence[Turn], *, images: int = 0, context: str = "") -> Encoded:
        """Ids and labels of a conversation about `images` images.

        Args:
            turns: questions with answers; the last answer may be None, and is then left to the model.
            context: words that stand where an image would, before the first question.

        Raises:
            ValueError: the questions hold another number of `<image>` markers than there are images.
        """
        ids: list[int] = []
        labels: list[int] = []
        for piece in self.pieces(with_markers(turns, images), context=context):
            match piece:
                case Mark():
                    ids.append(self._id(piece.token))
                    labels.append(ids[-1] if piece.supervised else IGNORED)
                case Picture():
                    ids += [self.image_id] * self.image_tokens
                    labels += [IGNORED] * self.image_tokens
                case Text():
                    encoding = self._words.encode(piece.words, add_special_tokens=False)
                    ids += encoding.ids
                    labels += [
                        token if piece.answer is not None and start >= piece.answer else IGNORED
                        for token, (start, _) in zip(encoding.ids, encoding.offsets, strict=True)
                    ]
        return Encoded(ids, labels)

    def decode(self, ids: Sequence[int]) -> str:
        """The words of an answer, without marks."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def pieces(self, turns: Sequence[Turn], *, context: str = "") -> Iterator[Piece]:
        """The conversation as marks, texts and images; questions hold an `<image>` marker per image."""
        match self.template:
            case "chatml":
                yield from _chatml(turns, self.system, context)
            case "llama3":
                yield from _llama3(turns, self.system)
            case "vicuna":
                yield from _vicuna(turns, self.system or VICUNA_SYSTEM)
            case "plain":
                yield from _plain(turns, self.end)
            case "cpm_bee":
                raise ValueError("CPM-Bee has a tokenizer and a chat of its own: models.cpm_bee_chat")


_ENDS = {"chatml": "<|im_end|>", "vicuna": "</s>", "llama3": "<|eot_id|>"}
BEGINS = {"vicuna": "<s>", "llama3": "<|begin_of_text|>"}
"""The mark that a conversation begins with, of the templates that have one."""


def _end(tokenizer: Tokenizer, template: Name) -> str:
    if template in _ENDS:
        return _ENDS[template]
    known = [mark for mark in _ENDS.values() if tokenizer.token_to_id(mark) is not None]
    return known[0] if known else "</s>"


def with_markers(turns: Sequence[Turn], images: int) -> list[Turn]:
    """The turns with one `<image>` marker per image, by default before the first question.

    Raises:
        ValueError: there are markers, but not as many as images.
    """
    found = sum(question.count(IMAGE_MARKER) for question, _ in turns)
    if images and not found:
        (question, answer), *rest = turns
        return [(IMAGE_MARKER * images + "\n" + question, answer), *rest]
    if found != images:
        raise ValueError(f"the questions hold {found} {IMAGE_MARKER} markers for {images} images")
    return list(turns)


def _with_pictures(words: str) -> Iterator[Piece]:
    first, *others = words.split(IMAGE_MARKER)
    if first:
        yield Text(first)
    for part in others:
        yield Picture()
        if part:
            yield Text(part)


def _chatml(turns: Sequence[Turn], system: str, context: str) -> Iterator[Piece]:
    if system:
        yield from (Mark("<|im_start|>"), Text(f"system\n{system}"), Mark("<|im_end|>"), Text("\n"))
    for index, (question, answer) in enumerate(turns):
        yield Mark("<|im_start|>")
        about = f"{context}\n" if context and index == 0 else ""
        yield from _with_pictures(f"user\n{about}{question}")
        yield from (Mark("<|im_end|>"), Text("\n"), Mark("<|im_start|>"))
        opening = "assistant\n"
        if answer is None:
            yield Text(opening)
            return
        yield from (Text(opening), Text(answer, answer=0), Mark("<|im_end|>", supervised=True), Text("\n"))


def _llama3(turns: Sequence[Turn], system: str) -> Iterator[Piece]:
    def header(role: str) -> Iterator[Piece]:
        yield from (Mark("<|start_header_id|>"), Text(role), Mark("<|end_header_id|>"))

    yield Mark(BEGINS["llama3"])
    if system:
        yield from header("system")
        yield from (Text(f"\n\n{system}"), Mark("<|eot_id|>"))
    for question, answer in turns:
        yield from header("user")
        yield from _with_pictures(f"\n\n{question}")
        yield Mark("<|eot_id|>")
        yield from header("assistant")
        yield Text("\n\n")
        if answer is None:
            return
        yield from (Text(answer, answer=0), Mark("<|eot_id|>", supervised=True))


def _vicuna(turns: Sequence[Turn], system: str) -> Iterator[Piece]:
    yield Mark(BEGINS["vicuna"])
    before = f"{system} "
    for question, answer in turns:
        *shown, last = _with_pictures(f"{before}USER: {question} ASSISTANT:")
        yield from shown
        # One text with the answer: sentencepiece tokenizers put the space before a word into it.
        opening = last.words if isinstance(last, Text) else ""
        if answer is None:
            yield Text(opening)
            return
        yield from (Text(f"{opening} {answer}", answer=len(opening)), Mark("</s>", supervised=True))
        before = ""


def _plain(turns: Sequence[Turn], end: str) -> Iterator[Piece]:
    """An image and its caption, nothing else (LLaVA's first stage)."""
    for question, answer in turns:
        for _ in range(question.count(IMAGE_MARKER)):
            yield Picture()
        if answer is None:
            return
        yield from (Text(answer, answer=0), Mark(end, supervised=True))
