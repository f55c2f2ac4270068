"""Which sample is trained on when: a function of the step alone.

So a run that is killed and started again sees the same batches, and so does a run on another
number of ranks: nothing about the data order is state.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SORTED_BATCHES = 16
"""Batches that are drawn together when samples of like length shall meet: less padding, and still shuffled."""


@dataclass(frozen=True)
class DataPlan:
    """Batches of `batch_size` from `samples` samples, each sample exactly once per epoch.

    Where the samples' `lengths` are given, a batch holds samples of like length.
    """

    samples: int
    batch_size: int
    seed: int
    lengths: tuple[int, ...] | None = None

    def batch(self, step: int) -> list[tuple[int, int]]:
        """The (epoch, sample) pairs of the global batch of a step, counted from 0."""
        first = step * self.batch_size
        return [
            (place // self.samples, int(self._order(place // self.samples)[place % self.samples]))
            for place in range(first, first + self.batch_size)
        ]

    def share(self, step: int, rank: int, ranks: int) -> list[tuple[int, int]]:
        """The part of the global batch that one rank takes. The shares of all ranks are the batch."""
        return self.batch(step)[rank::ranks]

    def _order(self, epoch: int) -> np.ndarray:
        return _epoch_order(self.samples, self.batch_size, self.seed, self.lengths, epoch)


@functools.lru_cache(maxsize=2)
def _epoch_order(
    samples: int, batch_size: int, seed: int, lengths: Sequence[int] | None, epoch: int
) -> np.ndarray:
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(samples)
    if lengths is None:
        return order
    length = np.asarray(lengths)
    parts = []
    for start in range(0, samples, batch_size * SORTED_BATCHES):
        window = order[start : start + batch_size * SORTED_BATCHES]
        window = window[np.argsort(length[window], kind="stable")]
        batches = [window[first : first + batch_size] for first in range(0, len(window), batch_size)]
        parts += [batches[index] for index in generator.permutation(len(batches))]
    return np.concatenate(parts)
