"""A slice of a source: so many of its rows, chosen by what they are and not by where they stand.

A row's uid is a hash of its URL and text; the slice holds the smallest. So the same rows are chosen whatever the order of
the source's files, they are spread over all of it, and a larger slice holds every smaller one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

_BATCH = 65_536


class Slice:
    """The limit of a slice, found while its source is read for the first time. Memory: 16 bytes per row of the slice."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._smallest: npt.NDArray[np.uint64] = np.array([], dtype=np.uint64)
        self._limit: int | None = None
        """The largest key in the slice; none: the source has no more rows than it."""

    def watch(self, uids: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        """Hand on the position and uid of each row that can be used, and take account of it; equal uids count once."""
        batch: list[int] = []
        for position, uid in uids:
            batch.append(_key(uid))
            if len(batch) == _BATCH:
                self._add(batch)
                batch = []
            yield position, uid
        self._add(batch)
        if len(self._smallest) == self._rows:
            self._limit = int(self._smallest[-1])

    def holds(self, uid: str) -> bool:
        """Whether a row with this uid is in the slice."""
        return self._limit is None or _key(uid) <= self._limit

    def _add(self, keys: list[int]) -> None:
        # Sorted, and each once.
        self._smallest = np.union1d(self._smallest, np.array(keys, dtype=np.uint64))[: self._rows]


def _key(uid: str) -> int:
    return int(uid[:16], 16)
