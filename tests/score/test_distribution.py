"""Guarantees of the counted distribution."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.score.distribution import Distribution

COSINES = st.lists(st.floats(-1, 1, width=32), max_size=200)


def counted(scores: list[float]) -> Distribution:
    distribution = Distribution()
    for start in range(0, len(scores), 7):
        distribution.add(np.array(scores[start : start + 7], dtype=np.float32))
    return distribution


@given(COSINES, st.integers(1, 200))
def test_a_histogram_counts_every_score_once(scores: list[float], bins: int) -> None:
    edges, counts = counted(scores).histogram(bins)
    assert sum(counts) == len(scores)
    assert (len(edges), len(counts)) == (bins + 1, bins)
    assert edges == sorted(edges)


@given(COSINES.filter(len))
def test_quantiles_are_those_of_the_scores_within_a_bin(scores: list[float]) -> None:
    found = counted(scores).quantiles()
    for share, value in found.items():
        expected = np.quantile(np.float32(scores), float(share), method="inverted_cdf")
        assert abs(value - expected) <= 0.001


def test_no_scores_have_no_quantiles_and_no_mean() -> None:
    empty = Distribution()
    assert empty.quantiles() == {}
    assert empty.mean is None
    assert sum(empty.histogram(10)[1]) == 0
