"""Intervals: the literal formulas, and the cases where a naive one would claim certainty."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.benchmarks.statistics import estimate, wilson


def test_wilson_agrees_with_published_values() -> None:
    # Newcombe 1998, table I: 81/263 and 15/148, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_clusters_of_one_give_the_plain_standard_error() -> None:
    values = [1.0, 0.0, 1.0, 1.0, 0.0]
    found = estimate(values, clusters=list("abcde"))
    assert found is not None
    assert found.standard_error == pytest.approx(math.sqrt(np.var(values) / len(values)))


def test_copies_of_an_item_add_no_certainty() -> None:
    values = [1.0, 0.0, 1.0, 1.0, 0.0]
    single = estimate(values, clusters=list(range(5)))
    copied = estimate(values * 4, clusters=list(range(5)) * 4)
    assert single is not None and copied is not None
    assert copied.standard_error == pytest.approx(single.standard_error)
    assert (copied.n, copied.clusters) == (20, 5)


def test_a_perfect_score_keeps_a_doubt_of_the_size_of_its_clusters() -> None:
    found = estimate([1.0] * 40, clusters=[index // 2 for index in range(40)])
    assert found is not None
    assert (found.low, found.high) == pytest.approx(wilson(20, 20)) and found.low < 0.9


def test_nothing_counted_is_no_score() -> None:
    assert estimate([]) is None
