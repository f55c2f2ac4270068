"""The distribution of scores, counted in bounded memory: fine bins over the range of a cosine."""

from __future__ import annotations

from typing import Any

import numpy as np

BINS = 4000
"""Bins over [-1, 1]: each is 0.0005 wide, and that is how exact a quantile is."""
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

Scores = np.ndarray[Any, np.dtype[np.float32]]


class Distribution:
    """Counts of scores; `add` as many batches as there are, in any order."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, dtype=np.int64)
        self._sum = 0.0

    def add(self, scores: Scores) -> None:
        places = ((scores.astype(np.float64) + 1) * (BINS / 2)).astype(np.int64).clip(0, BINS - 1)
        self.counts += np.bincount(places, minlength=BINS)
        self._sum += float(scores.sum(dtype=np.float64))

    @property
    def size(self) -> int:
        return int(self.counts.sum())

    @property
    def mean(self) -> float | None:
        """None where there is no score."""
        return round(self._sum / self.size, 6) if self.size else None

    def quantiles(self) -> dict[str, float]:
        """Share of the scores -> the score below which it lies; empty where there is no score."""
        if not self.size:
            return {}
        reached = self.counts.cumsum() / self.size
        edges = np.linspace(-1, 1, BINS + 1)[1:]
        return {f"{share:g}": round(float(edges[np.searchsorted(reached, share)]), 4) for share in _QUANTILES}

    def histogram(self, bins: int) -> tuple[list[float], list[int]]:
        """Edges (bins + 1) and counts (bins) over the range in which there are scores."""
        taken = self.counts.nonzero()[0]
        first, last = (int(taken[0]), int(taken[-1]) + 1) if len(taken) else (0, BINS)
        width = -(-(last - first) // bins)
        first = max(0, min(first, BINS - width * bins))
        edges = first + width * np.arange(bins + 1)
        padded = np.zeros(max(BINS, int(edges[-1])), dtype=np.int64)
        padded[:BINS] = self.counts
        counts = padded[first : int(edges[-1])].reshape(bins, width).sum(axis=1)
        return [round(float(edge) * 2 / BINS - 1, 4) for edge in edges], counts.tolist()
