"""Which sample is trained on when: a function of the step alone.

So a run that is killed and started again sees the same batches, and so does a run on another
number of ranks: nothing about the data order is state.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DataPlan:
    """Batches of `batch_size` from `samples` samples, each exactly once per epoch."""

    samples: int
    batch_size: int
    seed: int

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
        return _permutation(self.samples, self.seed, epoch)


@functools.lru_cache(maxsize=2)
def _permutation(samples: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(samples)
