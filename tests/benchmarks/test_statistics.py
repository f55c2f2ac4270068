"""Intervals: the literal formulas, and the cases where a naive one would claim certainty."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pipelines.benchmarks.statistics import Estimate, estimate, mean_of_means, weighted_sum, wilson


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


def test_the_clustered_error_is_the_double_sum_of_the_paper() -> None:
    values, images = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0], list("aabbbcd")
    mean = sum(values) / 7
    double_sum = sum(
        (values[i] - mean) * (values[j] - mean) for i in range(7) for j in range(7) if images[i] == images[j]
    )
    found = estimate(values, images)
    assert found is not None and found.standard_error == pytest.approx(math.sqrt(double_sum) / 7)
    assert (found.low, found.high) == pytest.approx(
        stats.norm.interval(0.95, loc=mean, scale=math.sqrt(double_sum) / 7), abs=1e-9
    )


def test_wilson_is_scipys() -> None:
    for right, n in ((0, 7), (3, 7), (7, 7), (812, 1000)):
        interval = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
        assert wilson(right, n) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_a_sum_of_points_has_its_parts_errors_as_if_each_pair_went_together() -> None:
    """MME: 100 x accuracy + 100 x both right. Where both always are right or wrong together, the sum is 200 x accuracy."""
    accuracy = estimate([1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0], list("aabbccdd"))
    both = estimate([1.0, 0.0, 1.0, 1.0], list("abcd"))
    assert accuracy is not None and both is not None
    assert accuracy.standard_error == pytest.approx(both.standard_error)
    found = weighted_sum([(100.0, accuracy), (100.0, both)])
    assert found is not None
    assert found.value == pytest.approx(150.0)
    assert found.standard_error == pytest.approx(200 * both.standard_error)
    assert found.low == pytest.approx(150 - 200 * (both.value - both.low))
    # Above, the interval of the parts is cut at all points there are; so is the sum's.
    assert found.high == pytest.approx(min(200.0, 150 + 200 * (both.high - both.value)))
    assert (found.n, found.clusters) == (12, 8)


def test_a_sum_of_unlike_parts_is_the_formula_written_out() -> None:
    parts = [
        (100.0, Estimate(0.5, 0.4, 0.6, 0.05, 100, 50)),
        (100.0, Estimate(0.25, 0.2, 0.35, 0.03, 100, 50)),
        (50.0, Estimate(0.8, 0.7, 0.9, 0.04, 30, 30)),
    ]
    found = weighted_sum(parts)
    assert found is not None
    value = 100 * 0.5 + 100 * 0.25 + 50 * 0.8
    assert found.value == pytest.approx(value)
    assert found.standard_error == pytest.approx(math.sqrt(2 * (5.0**2 + 3.0**2 + 2.0**2)))
    assert found.low == pytest.approx(value - math.sqrt(2 * (10.0**2 + 5.0**2 + 5.0**2)))
    assert found.high == pytest.approx(value + math.sqrt(2 * (10.0**2 + 10.0**2 + 5.0**2)))
    assert weighted_sum([]) is None


def test_a_mean_of_means_weighs_groups_alike_and_propagates_their_errors() -> None:
    large, small = [1.0, 1.0, 1.0, 0.0, 1.0, 0.0], [0.0, 1.0]
    found = mean_of_means([(large, list("aabbcc")), (small, list("de")), ([], [])])
    one, other = estimate(large, list("aabbcc")), estimate(small, list("de"))
    assert found is not None and one is not None and other is not None
    assert found.value == pytest.approx((4 / 6 + 1 / 2) / 2) != pytest.approx(5 / 8)
    errors = (one.standard_error, other.standard_error)
    assert found.standard_error == pytest.approx(math.hypot(*errors) / 2)
    assert found.low == pytest.approx(
        found.value - math.hypot(one.value - one.low, other.value - other.low) / 2
    )
    assert found.high == pytest.approx(
        min(1.0, found.value + math.hypot(one.high - one.value, other.high - other.value) / 2)
    )
    assert (found.n, found.clusters) == (8, 5)
    assert mean_of_means([([], [])]) is None


def test_a_mean_of_perfect_groups_keeps_a_doubt() -> None:
    found = mean_of_means([([1.0] * 5, list("abcde")), ([1.0] * 5, list("fghij"))])
    assert found is not None and found.value == found.high == 1.0
    assert found.low == pytest.approx(1 - math.sqrt(2) * (1 - wilson(5, 5)[0]) / 2)


def test_the_interval_of_a_mean_of_means_covers_the_truth() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        groups = [
            (generator.binomial(1, p, 60).astype(float).tolist(), list(range(60))) for p in (0.3, 0.6, 0.8)
        ]
        found = mean_of_means(groups)
        assert found is not None
        covered += found.low <= (0.3 + 0.6 + 0.8) / 3 <= found.high
    assert 0.90 < covered / 300 < 0.99
