"""The reference pairs as tensors, and the batches of every step: functions of the seed alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from models.clip import ChineseCLIP, pixels, square
from pipelines.errors import BadInput
from pipelines.foundations.clip.spec import ClipTraining
from pipelines.progress import Progress

COLUMNS = ("image", "language", "caption", "hard_negatives")
_BLANK_NOISE = 12
_BLANK_RECTANGLES = 6

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class ReferencePairs:
    """All pairs in memory: a few thousand small squares and token ids."""

    squares: Pixels
    """uint8 (N, side, side, 3)."""
    pieces: Tensor
    """The ids of the word pieces that occur in any text, ascending; padding is the first."""
    captions: Tensor
    """Places in `pieces` (N, T), padded to the longest text of all."""
    negatives: Tensor
    """Places in `pieces` (N, negatives of a pair, T), padded likewise."""

    def __len__(self) -> int:
        return len(self.squares)


@dataclass(frozen=True)
class Batch:
    """Images (B + blanks, 3, side, side), the blank ones last; captions (B, T) and negatives (B K, T) as places."""

    images: Tensor
    captions: Tensor
    negatives: Tensor


def read(path: Path, clip: ChineseCLIP, progress: Progress) -> ReferencePairs:
    """The pairs of `reference/pairs.parquet`, preprocessed for the model.

    Raises:
        BadInput: the file is no such table, or a pair lacks its hard negatives.
    """
    try:
        rows = pq.read_table(path, columns=list(COLUMNS)).to_pylist()
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise BadInput(
            f"these reference pairs cannot be read: {error}", where=path, remedy="run the world stage again"
        ) from error
    if not rows or not all(row["hard_negatives"] for row in rows):
        raise BadInput(
            "the reference pairs are empty, or a pair has no hard negatives",
            where=path,
            remedy="make the world with at least one reference pair, by its own stage",
        )
    progress.start("preparing pairs", len(rows), unit="pair")
    squares = np.empty((len(rows), clip.image_size, clip.image_size, 3), dtype=np.uint8)
    captions, negatives = [], []
    most = max(len(row["hard_negatives"]) for row in rows)
    for index, row in enumerate(rows):
        squares[index] = square(Image.open(io.BytesIO(row["image"])), clip.image_size)
        captions.append(clip.ids(row["caption"]))
        told = [clip.ids(text) for text in row["hard_negatives"]]
        # A pair with fewer than most repeats some.
        negatives += [told[place % len(told)] for place in range(most)]
        progress.advance()
    texts = clip.padded(captions + negatives, length=1 + max(map(len, captions + negatives)))
    pieces, places = texts.unique(return_inverse=True)
    places = places[:, :-1]  # The last column was there so that padding is among the pieces.
    return ReferencePairs(squares, pieces, places[: len(rows)], places[len(rows) :].view(len(rows), most, -1))


def batches(pairs: ReferencePairs, training: ClipTraining, steps: int) -> Iterator[Batch]:
    """One batch a step: every pair comes once before any comes again; negatives are drawn anew each time."""
    generator = np.random.default_rng(training.seed)
    side, most = pairs.squares.shape[1], pairs.negatives.shape[1]
    order = np.empty(0, dtype=np.int64)
    for _ in range(steps):
        while len(order) < training.batch:
            order = np.concatenate([order, generator.permutation(len(pairs))])
        chosen, order = order[: training.batch], order[training.batch :]
        images = np.concatenate([pairs.squares[chosen], blanks(training.blank_images, side, generator)])
        rows = torch.from_numpy(np.repeat(chosen, training.hard_negatives))
        drawn = torch.from_numpy(generator.integers(0, most, len(rows)))
        yield Batch(pixels(images), pairs.captions[chosen], pairs.negatives[rows, drawn])


def blanks(count: int, side: int, generator: np.random.Generator) -> Pixels:
    """Images that show no scene, as a web server's default picture: flat colours, frames, bars, noise.

    Nothing of any crawl's own placeholder is known here.
    """
    made = np.empty((count, side, side, 3), dtype=np.uint8)
    for image in made:
        image[:] = generator.integers(0, 256, 3)
        colour = generator.integers(0, 256, 3)
        for _ in range(int(generator.integers(0, _BLANK_RECTANGLES))):
            top, left = generator.integers(0, side, 2)
            height, width = generator.integers(1, side, 2)
            image[top : top + height, left : left + width] = colour
            if generator.random() < 0.5:
                colour = generator.integers(0, 256, 3)
        noise = generator.normal(0, generator.uniform(0, _BLANK_NOISE), image.shape)
        image[:] = np.clip(image + noise, 0, 255).astype(np.uint8)
    return made
