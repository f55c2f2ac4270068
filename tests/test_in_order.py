"""Results come in the items' order, an error where its item's result would stand, and little is begun ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pipelines.cores import usable_cores
from pipelines.in_order import in_order


def test_results_come_in_the_items_order() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.05 if item == 0 else 0)
        return item * item

    assert list(in_order(slow_first, range(20))) == [item * item for item in range(20)]


def test_an_error_is_raised_in_its_items_place() -> None:
    def fails_at_three(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    seen = []
    with pytest.raises(ValueError, match="three"):
        for result in in_order(fails_at_three, range(10)):
            seen.append(result)
    assert seen == [0, 1, 2]


def test_no_more_items_are_begun_than_threads_and_two() -> None:
    begun, lock = [], threading.Lock()

    def note(item: int) -> int:
        with lock:
            begun.append(item)
        return item

    results: Iterator[int] = in_order(note, range(1000))
    next(results)
    time.sleep(0.1)
    assert len(begun) <= usable_cores() + 2
