"""What must not be trained on: the images and questions of benchmarks, in a form that pairs can be held against."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.benchmarks import suite
from pipelines.errors import BadInput
from pipelines.facts import captions, hashes
from pipelines.facts.spec import Decontamination
from pipelines.score.pairs import DECODE_ERRORS, perceptual_hash

_FEWEST_WORDS = 4
"""A question of fewer words, such as "What is this?", tells nothing when a caption equals it."""


class Benchmarks:
    """Images by perceptual hash and questions by runs of words, of some benchmark tables."""

    def __init__(self, tables: Mapping[str, Path], rules: Decontamination) -> None:
        """
        Raises:
            BadInput: a table holds no benchmark that is known, or an image that cannot be decoded.
        """
        self._rules = rules
        self._names: list[str] = []
        found: list[int] = []
        seen: set[bytes] = set()
        self._runs: dict[str, str] = {}
        self._whole: dict[str, str] = {}
        for name, table in tables.items():
            for number, (image, question) in enumerate(_asked(table)):
                if rules.hash_bits is not None and image not in seen:
                    seen.add(image)
                    found.append(_hash(image, table, number))
                    self._names.append(name)
                if rules.words is not None:
                    self._add(name, captions.words(question), rules.words)
        self._hashes = np.array(found, dtype=np.uint64)

    def _add(self, name: str, words: Sequence[str], length: int) -> None:
        for start in range(len(words) - length + 1):
            self._runs.setdefault(" ".join(words[start : start + length]), name)
        if _FEWEST_WORDS <= len(words) < length:
            self._whole.setdefault(" ".join(words), name)

    def of_images(self, of_pairs: hashes.Hashes) -> list[str | None]:
        """The benchmark that each perceptual hash is near to an image of, if any."""
        if self._rules.hash_bits is None:
            return [None] * len(of_pairs)
        places = hashes.nearest(of_pairs, self._hashes, self._rules.hash_bits)
        return [self._names[place] if place >= 0 else None for place in places]

    def of_caption(self, words: Sequence[str]) -> str | None:
        """The benchmark whose question shares a run of words with the caption, if any."""
        length = self._rules.words
        if length is None:
            return None
        for start in range(len(words) - length + 1):
            if name := self._runs.get(" ".join(words[start : start + length])):
                return name
        return self._whole.get(" ".join(words))


def _asked(table: Path) -> Iterator[tuple[bytes, str]]:
    """The image and the question of each item, in every language; its rotations ask the same."""
    for one in suite.load([table]):
        if one.rotation == 0:
            yield bytes(one.image), one.question


def _hash(image: bytes, table: Path, number: int) -> int:
    try:
        with Image.open(io.BytesIO(image)) as opened:
            return perceptual_hash(opened)
    except DECODE_ERRORS as error:
        raise BadInput(
            f"the image of question {number} cannot be decoded: {error}", where=table,
            remedy="make or fetch the benchmark again",
        ) from error  # fmt: skip
