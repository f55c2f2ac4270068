"""What a sample is to the trainer, and how samples become a batch of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.chat import IGNORED, Encoded
from models.vision_language import normalise

LENGTH_MULTIPLE = 16
"""Few different shapes: a CPU's matrix kernels are compiled, and kept, for each."""


@dataclass(frozen=True)
class Sample:
    """A conversation, and the image it is about: uint8 (3, size, size), or none."""

    text: Encoded
    pixels: np.ndarray | None = None


class Samples(Protocol):
    """Random access to a training set. The same index and epoch always give the same sample."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> tuple[int, ...] | None:
        """Tokens of each sample where they differ enough to batch like with like; else none."""
        ...

    def sample(self, index: int, epoch: int) -> Sample: ...


@dataclass(frozen=True)
class Batch:
    """ids and labels (samples, tokens), right-padded; pixels (samples, 3, size, size) normalised, or none."""

    ids: Tensor
    labels: Tensor
    pixels: Tensor | None

    @property
    def supervised(self) -> int:
        """Supervised tokens: those that the shifted loss counts."""
        return int((self.labels[:, 1:] != IGNORED).sum())


def collate(samples: Sequence[Sample], *, pad: int) -> Batch:
    """The samples as one batch, padded to the longest, rounded up to a multiple of LENGTH_MULTIPLE."""
    longest = max(len(sample.text.ids) for sample in samples)
    longest += -longest % LENGTH_MULTIPLE
    ids = torch.full((len(samples), longest), pad)
    labels = torch.full((len(samples), longest), IGNORED)
    for row, sample in enumerate(samples):
        length = len(sample.text.ids)
        ids[row, :length] = torch.tensor(sample.text.ids)
        labels[row, :length] = torch.tensor(sample.text.labels)
    images = [sample.pixels for sample in samples if sample.pixels is not None]
    pixels = normalise(torch.from_numpy(np.stack(images))) if images else None
    return Batch(ids, labels, pixels)
