"""Which samples a step trains on: a function of the step alone.

Nothing about the data order is state, so a run that is killed and started again sees the same batches, and
so does a run on another number of ranks.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

SORTED_BATCHES = 16
"""Batches that are drawn together where samples of like length shall meet: less padding, and still shuffled."""
MOST_PLACES = 10_000
"""Places of a mixture's cycle: weights are kept to this precision, exactly where they are such fractions."""


@dataclass(frozen=True)
class Pool:
    """Samples that are drawn from together: all once in a shuffled order, then all again in another."""

    samples: np.ndarray
    seed: tuple[int, ...]

    def draw(self, place: int) -> tuple[int, int]:
        """The (epoch, sample) at a place in the pool's endless order."""
        epoch, within = divmod(place, len(self.samples))
        return epoch, int(self.samples[_permutation(len(self.samples), (*self.seed, epoch))[within]])


@dataclass(frozen=True)
class PoolOfLikes(Pool):
    """A pool in whose order samples of like length stand together: less padding where a sample is a row."""

    lengths: np.ndarray
    """Tokens of each of `samples`."""
    batch_size: int

    def draw(self, place: int) -> tuple[int, int]:
        epoch, within = divmod(place, len(self.samples))
        return epoch, int(self.samples[self._order(epoch)[within]])

    def _order(self, epoch: int) -> np.ndarray:
        # The last epoch's is kept: an order is drawn from place after place.
        kept = self.__dict__.setdefault("_kept", {})
        if epoch not in kept:
            kept.clear()
            kept[epoch] = like_with_like(
                _permutation(len(self.samples), (*self.seed, epoch)), self.lengths, self.batch_size,
                np.random.default_rng([*self.seed, epoch, 1]),
            )  # fmt: skip
        return kept[epoch]


def like_with_like(
    order: np.ndarray, lengths: np.ndarray, batch_size: int, generator: np.random.Generator
) -> np.ndarray:
    """The order, with samples of like length in a batch: sorted some batches at a time, batches shuffled."""
    parts = []
    for start in range(0, len(order), batch_size * SORTED_BATCHES):
        window = order[start : start + batch_size * SORTED_BATCHES]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches = [window[first : first + batch_size] for first in range(0, len(window), batch_size)]
        parts += [batches[number] for number in generator.permutation(len(batches))]
    return np.concatenate(parts)


# Each pool of a mixture is in some epoch, and the next one is near.
@functools.lru_cache(maxsize=32)
def _permutation(length: int, seed: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(list(seed)).permutation(length)


class Order:
    """The endless order of a training's samples: one pool, or several mixed by weight."""

    def __init__(self, pools: Sequence[Pool], weights: Sequence[float]) -> None:
        self._pools = pools
        self._cycle = mixture_cycle(weights)
        drawn = self._cycle[:, None] == np.arange(len(pools))
        # before[place, pool]: draws from the pool before this place of the cycle
        self._before = np.vstack([np.zeros(len(pools), dtype=np.int64), drawn.cumsum(0)])

    def draw(self, place: int) -> tuple[int, int]:
        """The (epoch, sample) at a place; epochs are counted per pool."""
        turn, within = divmod(place, len(self._cycle))
        pool = int(self._cycle[within])
        return self._pools[pool].draw(int(turn * self._before[-1, pool] + self._before[within, pool]))

    def batch(self, step: int, batch_size: int) -> list[tuple[int, int]]:
        """The (epoch, sample) pairs of the global batch of a step, counted from 0."""
        return [self.draw(place) for place in range(step * batch_size, (step + 1) * batch_size)]


def mixture_cycle(weights: Sequence[float]) -> np.ndarray:
    """The pools' numbers over one cycle, each as often as its weight says and as evenly spread as can be.

    A function of the weights alone: place n of a training draws from `cycle[n % len(cycle)]`.
    """
    total = sum(weights)
    shares = [Fraction(weight / total).limit_denominator(MOST_PLACES) for weight in weights]
    places = 1
    for share in shares:
        places = min(np.lcm(places, share.denominator), MOST_PLACES)
    owed, cycle = np.zeros(len(weights)), []
    step = np.array([float(share) for share in shares])
    for _ in range(int(places)):
        owed += step
        chosen = int(np.argmax(owed.round(9)))
        owed[chosen] -= 1
        cycle.append(chosen)
    return np.array(cycle)


def make_order(
    samples_by_source: Mapping[str, np.ndarray], weights: Mapping[str, float] | None, seed: int
) -> Order:
    """The order over the sources' samples: mixed by `weights`, or, without weights, all as one pool.

    Every source that has a weight above zero must have samples; one without a weight is not drawn from.
    """
    if not weights:
        everything = np.concatenate([samples_by_source[name] for name in sorted(samples_by_source)])
        return Order([Pool(everything, (seed,))], [1.0])
    drawn = sorted(name for name, weight in weights.items() if weight > 0)
    pools = [Pool(samples_by_source[name], (seed, number)) for number, name in enumerate(drawn)]
    return Order(pools, [weights[name] for name in drawn])
