"""Training sets in tables of shards: their texts, with the images that they are about."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image

from models.chat import Encoded
from pipelines.errors import BadInput
from pipelines.training.samples import Sample
from pipelines.training.texts import ShardTexts, Texts

CACHED_BYTES = 150_000_000
"""Decoded images that a process keeps: of the quickstart's all, of real ones few."""


class ShardSamples:
    """Conversations with their images, where they have some; small images stay decoded."""

    def __init__(
        self, shards: ShardTexts, texts: Texts, preprocess: Callable[[Image.Image], np.ndarray], size: int
    ) -> None:
        """`preprocess`: from an image to uint8 (3, size, size)."""
        self._shards, self._texts, self._preprocess = shards, texts, preprocess
        self._pixels = lru_cache(CACHED_BYTES // (3 * size * size))(self._decode)

    def __len__(self) -> int:
        return len(self._shards)

    def text(self, index: int, epoch: int | None) -> tuple[Encoded, str]:
        found = self._texts.text(index, epoch)
        if found is None:
            raise BadInput(
                f"sample {self._shards.uid(index)} has no text to train on",
                where=f"place {index} of the training set",
                remedy="train by a pack plan, which leaves such samples out and counts them",
            )
        return found

    def images(self, index: int) -> int:
        return self._texts.images(index)

    def sample(self, index: int, epoch: int) -> Sample:
        text, group = self.text(index, epoch)
        squares = [self._pixels(index, number) for number in range(self._texts.images(index))]
        if len(squares) > 1:
            return Sample(text, np.stack(squares), group)
        return Sample(text, squares[0] if squares else None, group)

    def _decode(self, index: int, number: int) -> np.ndarray:
        return self._preprocess(Image.open(io.BytesIO(self._shards.image(index, number))))
