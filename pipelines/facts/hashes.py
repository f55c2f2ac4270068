"""Perceptual hashes that differ in few bits: groups of them, and which of some known ones each is near to.

Of `bits + 2` bands of a hash, at least two are equal in two hashes that differ in `bits` bits or fewer. So
sorting by each pair of bands brings all near ones together: nothing is missed, and little is compared that is far.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any

import numpy as np

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
Groups = np.ndarray[Any, np.dtype[np.int64]]
_BITS = 64


def groups(hashes: Hashes, bits: int) -> Groups:
    """A number per hash, equal for hashes that a chain of near ones connects; -1 for one that has no other.

    Memory: about 100 bytes per distinct hash.
    """
    distinct, place, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    if not len(distinct):
        return np.empty(0, dtype=np.int64)
    found = [np.stack(pair) for pair in _near_pairs(distinct, bits)] if bits else []
    labels = connected(np.concatenate(found, axis=1) if found else np.empty((2, 0), int), len(distinct))
    rows = np.bincount(labels, weights=counts)[labels]
    numbered: Groups = np.where(rows > 1, labels, -1)[place]
    return numbered


def connected(links: Any, size: int) -> Groups:
    """The component of each of `size` nodes, under undirected `links` (2, N)."""
    from scipy.sparse import coo_array  # slow to import, and a filter that drops no look-alikes needs none
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(links.shape[1], dtype=np.int8), (links[0], links[1])), shape=(size, size))
    labels: Groups = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def nearest(hashes: Hashes, known: Hashes, bits: int) -> Groups:
    """For each hash the place of a known one that differs in at most `bits` bits, the nearest; else -1."""
    best = np.full(len(hashes), -1, dtype=np.int64)
    distance = np.full(len(hashes), bits + 1, dtype=np.int64)
    if not len(known) or not len(hashes):
        return best
    for mask in _masks(bits):
        order = np.argsort(known & mask, kind="stable")
        keys = (known & mask)[order]
        wanted = hashes & mask
        start, end = np.searchsorted(keys, wanted), np.searchsorted(keys, wanted, "right")
        rows = np.flatnonzero(end > start)
        step = 0
        while len(rows):
            candidates = order[start[rows] + step]
            differ = np.bitwise_count(hashes[rows] ^ known[candidates]).astype(np.int64)
            nearer = differ < distance[rows]
            best[rows[nearer]], distance[rows[nearer]] = candidates[nearer], differ[nearer]
            step += 1
            rows = rows[start[rows] + step < end[rows]]
    return best


def _near_pairs(hashes: Hashes, bits: int) -> Iterator[tuple[Groups, Groups]]:
    """Pairs of places of hashes that differ in at most `bits` bits; some come more than once."""
    for mask in _masks(bits):
        order = np.argsort(hashes & mask, kind="stable")
        keys, sorted_hashes = (hashes & mask)[order], hashes[order]
        step, left = 1, np.arange(max(0, len(keys) - 1))
        while len(left):
            left = left[keys[left] == keys[left + step]]
            near = left[np.bitwise_count(sorted_hashes[left] ^ sorted_hashes[left + step]) <= bits]
            if len(near):
                yield order[near], order[near + step]
            step += 1
            left = left[left + step < len(keys)]


def _masks(bits: int) -> Iterator[np.uint64]:
    """Masks of two bands each, whose bits two near hashes share for at least one of the masks."""
    if bits == 0:
        yield np.uint64(2**_BITS - 1)
        return
    edges = [round(_BITS * number / (bits + 2)) for number in range(bits + 3)]
    bands = [sum(1 << bit for bit in range(low, high)) for low, high in pairwise(edges)]
    for one, other in combinations(bands, 2):
        yield np.uint64(one | other)
