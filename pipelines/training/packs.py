"""How the samples of a step are packed into rows, and how the rows are dealt to the ranks."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

Draw = tuple[int, int]
"""An epoch and a sample in it."""


@dataclass(frozen=True)
class Pack:
    """Samples that are trained on in one row."""

    draws: tuple[Draw, ...]
    tokens: int
    supervised: int
    images: int


def balanced_packs(tokens: Sequence[int], limit: int, multiple: int = 1) -> list[list[int]]:
    """Places of `tokens` in as few packs as hold at most `limit` tokens each, as even as can be.

    The number of packs is a multiple of `multiple` where there are samples enough. The longest sample goes first, each into
    the pack that has the fewest tokens (Graham 1969); every pack keeps its samples in the order given.

    Raises:
        ValueError: a sample is longer than `limit`.
    """
    if max(tokens) > limit:
        raise ValueError(f"a sample of {max(tokens)} tokens does not fit into a pack of {limit}")
    longest_first = sorted(range(len(tokens)), key=lambda place: (-tokens[place], place))
    count = _round_up(math.ceil(sum(tokens) / limit), multiple)
    while True:
        packs = _dealt(tokens, longest_first, min(count, len(tokens)))
        if packs is not None and all(sum(tokens[place] for place in pack) <= limit for pack in packs):
            return [sorted(pack) for pack in packs]
        count = _round_up(count + 1, multiple)


def _round_up(count: int, multiple: int) -> int:
    return count + -count % multiple


def _dealt(tokens: Sequence[int], order: Sequence[int], count: int) -> list[list[int]]:
    packs: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, number) for number in range(count)]
    for place in order:
        load, number = heapq.heappop(loads)
        packs[number].append(place)
        heapq.heappush(loads, (load + tokens[place], number))
    return packs


def deal(packs: Sequence[Pack], ranks: int) -> list[list[Pack]]:
    """Each rank's packs: as many as another's or one fewer, with images and then tokens as even as can be.

    Every pack goes to exactly one rank. The ranks' vision encoders wait for each other, so images count first.
    """
    most = math.ceil(len(packs) / ranks)
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    loads = [(0, 0, rank) for rank in range(ranks)]
    heapq.heapify(loads)
    for number in sorted(range(len(packs)), key=lambda n: (-packs[n].images, -packs[n].tokens, n)):
        images, tokens, rank = heapq.heappop(loads)
        dealt[rank].append(number)
        if len(dealt[rank]) < most:
            heapq.heappush(loads, (images + packs[number].images, tokens + packs[number].tokens, rank))
    return [[packs[number] for number in sorted(numbers)] for numbers in dealt]
