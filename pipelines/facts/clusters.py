"""Images that mean the same: near-duplicates among embeddings, found within clusters (SemDeDup, arXiv 2303.09540).

Embeddings stay on disk: memory holds a sample for k-means, the centres, and one cluster at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.facts.hashes import Groups, connected

_BLOCK = 4096
_MOST_AT_ONCE = 4_194_304
"""Cosines that are compared before what is linked is joined: an image under thousands of pairs is near to all of its copies."""
_MOST_CLUSTERS = 65_536
_SAMPLE_PER_CLUSTER = 128
"""Points per centre that k-means is run on; more change the centres little."""


class Embeddings:
    """Files of float16 (rows, width) as one matrix, read where it is asked for."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._parts = [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]
        self._parts = [part for part in self._parts if len(part)]
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, places: Any) -> Any:
        """The rows at ascending `places`, as float32 of unit length."""
        rows = []
        for start, part in zip(self._starts, self._parts, strict=False):
            inside = places[(places >= start) & (places < start + len(part))]
            if len(inside):
                rows.append(part[inside - start])
        found = np.concatenate(rows).astype(np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def groups(files: Sequence[Path], cosine: float, rows_per_cluster: int, seed: int) -> Groups:
    """A number per row, equal for rows that a chain of near ones within a cluster connects; -1 for one without."""
    embeddings = Embeddings(files)
    size = len(embeddings)
    cluster = _assign(embeddings, min(_MOST_CLUSTERS, max(1, size // rows_per_cluster)), seed)
    order = np.argsort(cluster, kind="stable")
    edges = np.searchsorted(cluster[order], np.arange(int(cluster.max(initial=-1)) + 2))
    labels = np.arange(size, dtype=np.int64)
    for start, end in pairwise(edges):
        members = order[start:end]
        if len(members):
            labels[members] = members[_joined(embeddings[members], cosine)]
    rows_of = np.bincount(labels, minlength=1)[labels] if size else labels
    numbered: Groups = np.where(rows_of > 1, labels, -1)
    return numbered


def _joined(rows: Any, cosine: float) -> Groups:
    """For each row the first one that a chain of near ones connects it with."""
    size = len(rows)
    first_of = np.arange(size)
    step = max(1, min(_BLOCK, _MOST_AT_ONCE // size))
    for start in range(0, size, step):
        one, other = np.nonzero(rows[start : start + step] @ rows[start:].T >= cosine)
        links = np.stack([one + start, other + start])
        groups = connected(np.concatenate([links, np.stack([np.arange(size), first_of])], axis=1), size)
        _, firsts = np.unique(groups, return_index=True)
        first_of = firsts[groups]
    return first_of


def _assign(embeddings: Embeddings, count: int, seed: int) -> Groups:
    """The cluster of each row, by spherical k-means on a sample."""
    size = len(embeddings)
    if count == 1 or not size:
        return np.zeros(size, dtype=np.int64)
    import faiss  # most runs cluster nothing

    generator = np.random.default_rng(seed)
    sample = np.sort(generator.permutation(size)[: count * _SAMPLE_PER_CLUSTER])
    points = embeddings[sample]
    trained = faiss.Kmeans(points.shape[1], count, niter=15, seed=seed, spherical=True)
    trained.train(points)
    found = np.empty(size, dtype=np.int64)
    for start in range(0, size, _BLOCK):
        places = np.arange(start, min(size, start + _BLOCK))
        found[places] = trained.index.search(embeddings[places], 1)[1][:, 0]
    return found
