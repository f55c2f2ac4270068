"""BERT's wordpiece tokenizer, exactly as cn_clip applies it to captions.

Written out instead of taken from a tokenizer library because captions of the web hold characters on
which the libraries differ from cn_clip (private use, unassigned, `[SEP]` written in a caption), and a
score must not depend on that. Promise: the same ids as `cn_clip.clip.tokenize` for any text.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from pathlib import Path

CLS, SEP, PAD, UNKNOWN = "[CLS]", "[SEP]", "[PAD]", "[UNK]"
LONGEST_WORD = 200
"""A longer word is unknown as a whole."""

_CJK_RANGES = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
_ASCII_PUNCTUATION_RANGES = ((33, 47), (58, 64), (91, 96), (123, 126))


def _within(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in ranges)


class _Clean(dict[int, str]):
    """Per character, before lower-casing: controls go, whitespace is one space, CJK characters stand alone."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if character in "\t\n\r" or category == "Zs":
            made = " "
        elif code in (0, 0xFFFD) or category in ("Cc", "Cf"):
            made = ""
        elif _within(code, _CJK_RANGES):
            made = f" {character} "
        else:
            made = character
        self[code] = made
        return made


class _Split(dict[int, str]):
    """Per character, after decomposition: accents go, punctuation stands alone."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Mn":
            made = ""
        elif _within(code, _ASCII_PUNCTUATION_RANGES) or category.startswith("P"):
            made = f" {character} "
        else:
            made = character
        self[code] = made
        return made


_CLEAN, _SPLIT = _Clean(), _Split()


def words(text: str) -> list[str]:
    """The text in lower case without accents, cut at whitespace, punctuation and CJK characters."""
    lowered = text.translate(_CLEAN).lower()
    return unicodedata.normalize("NFD", lowered).translate(_SPLIT).split()


class Wordpiece:
    """A vocabulary of word pieces, and the ids of a caption in it."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.vocabulary = {piece: index for index, piece in enumerate(vocabulary)}
        self.pad, self.cls, self.sep = (self.vocabulary[name] for name in (PAD, CLS, SEP))
        self._word_ids = functools.lru_cache(maxsize=100_000)(self._cut_word)

    @classmethod
    def from_file(cls, path: Path) -> Wordpiece:
        """Read a `vocab.txt`: one piece a line, its id the line's number."""
        with path.open(encoding="utf-8") as stream:
            return cls([line.strip() for line in stream])

    def ids(self, text: str, length: int) -> list[int]:
        """[CLS], the text's pieces, [SEP]: at most `length` ids, the pieces cut to fit."""
        pieces: list[int] = []
        for word in words(text):
            pieces.extend(self._word_ids(word))
            if len(pieces) >= length - 2:
                break
        return [self.cls, *pieces[: length - 2], self.sep]

    def _cut_word(self, word: str) -> tuple[int, ...]:
        """Greedy longest match from the left; a word with a part that matches nothing is unknown."""
        unknown = (self.vocabulary[UNKNOWN],)
        if len(word) > LONGEST_WORD:
            return unknown
        ids = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = word[start:end] if start == 0 else "##" + word[start:end]
                if piece in self.vocabulary:
                    ids.append(self.vocabulary[piece])
                    start = end
                    break
            else:
                return unknown
        return tuple(ids)
