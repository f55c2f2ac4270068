"""How CPM-Bee reads a prompt off its ids: samples, segments, context; what sees what, and how far apart it lies."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

SUB = 1 << 20
"""Above any id of the vocabulary: the number of a token outside it counts in multiples of this."""
PAD, UNKNOWN, BEGIN, END = 0, 1, 6, 7
"""Ids of the published vocabulary. `BEGIN` opens each segment."""
MAX_DEPTH = 8


class Layout(NamedTuple):
    """How tokens lie in samples and segments: (rows, tokens) each."""

    sample: Tensor
    segment: Tensor
    """Within its sample: 0 the root, then key, value, key, value."""
    context: Tensor
    """Whether it belongs to the context, which every token of its sample sees."""
    place: Tensor
    valid: Tensor
    """False where there is padding."""


def layout_of(ids: Tensor, position_ids: Tensor | None = None) -> Layout:
    """The layout of ids (rows, tokens); rows are packs of samples where `position_ids` restart at 0."""
    rows, tokens = ids.shape
    place = torch.arange(tokens, device=ids.device).expand(rows, tokens)
    valid = ids.ne(PAD)
    starts = torch.zeros_like(place) if position_ids is None else torch.eq(position_ids, 0).long()
    sample = (starts.cumsum(1) - 1).clamp(min=0)
    opened = ids.eq(BEGIN).cumsum(1)
    # Segments opened before the sample's first token do not count.
    first = torch.full_like(opened, tokens * 2).scatter_reduce(
        1, sample, torch.where(valid, opened, tokens * 2), "amin"
    )
    segment = (opened - first.gather(1, sample)).clamp(min=0)
    last = torch.zeros_like(segment).scatter_reduce(1, sample, segment * valid, "amax").gather(1, sample)
    return Layout(sample, segment, segment.ne(last), place, valid)


def grown(layout: Layout, rows: int) -> Layout:
    """The layout with one more token of the answer, for so many beams."""
    last = Layout(*(part[:1, -1:] for part in layout))
    last = last._replace(place=last.place + 1)
    parts = (torch.cat((part[:1], added), dim=1) for part, added in zip(layout, last, strict=True))
    return Layout(*(part.expand(rows, -1) for part in parts))


def visible(query: Layout, key: Layout) -> Tensor:
    """Whether each query sees each key: bool (rows, queries, keys).

    The context is seen by its whole sample; an answer by what comes after it; nothing by another sample.
    """
    earlier = key.place[:, None, :] <= query.place[:, :, None]
    allowed = key.context[:, None, :] | (~query.context[:, :, None] & earlier)
    same = key.sample[:, None, :].eq(query.sample[:, :, None])
    return allowed & same & key.valid[:, None, :]


def segment_bucket(query: Tensor, key: Tensor) -> Tensor:
    """Bucket of two segments of one sample by the tree that they lie in; 0 where they are the same.

    `n_up * 8 + n_down + 1`, with the steps up from the query's segment to what both hang from, and down to the key's.
    """

    def depth(segment: Tensor) -> Tensor:
        return torch.where(segment.eq(0), 0, 2 - segment % 2)

    def entry(segment: Tensor) -> Tensor:
        return (segment + 1) // 2

    same_entry = entry(query).eq(entry(key))
    shared = torch.where(same_entry, torch.minimum(depth(query), depth(key)), 0)
    bucket = (depth(query) - shared) * MAX_DEPTH + (depth(key) - shared)
    return torch.where(query.eq(key), 0, bucket + 1)


def distance_bucket(distance: Tensor, buckets: int, most: int) -> Tensor:
    """Bucket of a distance (key's place less the query's): exact while small, then logarithmic; T5's, both ways."""
    half = buckets // 2
    exact = half // 2
    away = distance.abs()
    steps = torch.log(away.clamp(min=1).float() / exact) / math.log(most / exact) * (half - exact)
    far = (exact + steps.to(torch.int64)).clamp(max=half - 1)
    return distance.gt(0).long() * half + torch.where(away < exact, away, far)
