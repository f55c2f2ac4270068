"""Models and languages beside each other: against the formulas written out, and against the t-test of SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pipelines.benchmarks.benchmark import Judged
from pipelines.benchmarks.comparison import between_models, over_languages, paired


def items(values: list[float], images: list[str] | None = None) -> dict[str, Judged]:
    named = images or [f"image {place}" for place in range(len(values))]
    return {
        f"item {place}": Judged(f"item {place}", "all", image, {"right": value})
        for place, (value, image) in enumerate(zip(values, named, strict=True))
    }


def test_the_interval_and_the_p_value_are_those_of_the_formula_written_out() -> None:
    first = [1, 0, 0, 1, 0, 1, 0, 0, 1, 0]
    second = [1, 1, 0, 1, 1, 1, 0, 1, 0, 0]
    images = list("aabbbcddde")
    found = paired(items(first, images), items(second, images), "right")
    assert found is not None
    differences = [b - a for a, b in zip(first, second, strict=True)]
    mean = sum(differences) / 10
    # Miller 2024, equation 4: the sum over all pairs of items about one image.
    variance = sum(
        (differences[i] - mean) * (differences[j] - mean)
        for i in range(10)
        for j in range(10)
        if images[i] == images[j]
    ) / 10**2  # fmt: skip
    low, high = stats.norm.interval(0.95, loc=mean, scale=math.sqrt(variance))
    assert (found["difference"], found["n"], found["better"], found["worse"]) == (0.2, 10, 3, 1)
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=5e-5)
    assert found["p"] == pytest.approx(2 * stats.norm.sf(mean / math.sqrt(variance)), rel=5e-3)


def test_of_many_images_with_one_question_each_the_p_value_is_the_paired_t_tests() -> None:
    generator = np.random.default_rng(1)
    first = generator.binomial(1, 0.6, 3000).astype(float)
    second = np.where(generator.random(3000) < 0.05, 1.0, first)
    second = np.where(generator.random(3000) < 0.045, 0.0, second)
    found = paired(items(first.tolist()), items(second.tolist()), "right")
    expected = stats.ttest_rel(second, first)
    assert found is not None and 0.001 < expected.pvalue < 0.9
    assert found["p"] == pytest.approx(expected.pvalue, rel=0.01)
    interval = expected.confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high), abs=1e-4)


def test_questions_about_one_image_that_turn_together_are_one_observation() -> None:
    """Among equal models, one test in twenty finds p < 0.05; one that takes questions for independent finds many more."""
    generator = np.random.default_rng(7)
    clustered = naive = 0
    for _ in range(400):
        changes = np.repeat(generator.choice([-1.0, 0.0, 1.0], size=50, p=[0.2, 0.6, 0.2]), 4)
        images = [f"image {place // 4}" for place in range(200)]
        second = items((changes + 1).tolist(), images)
        found = paired(items([1.0] * 200, images), second, "right")
        assert found is not None
        clustered += found["p"] < 0.05
        naive += stats.ttest_rel(changes + 1, np.ones(200)).pvalue < 0.05
    assert 0.03 < clustered / 400 < 0.09 < 0.25 < naive / 400


def test_only_items_of_both_count_and_equal_models_differ_by_nothing() -> None:
    first, second = items([1, 0, 1, 0]), items([1, 0])
    assert paired(first, second, "right") == {
        "difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "n": 2, "better": 0, "worse": 0,
    }  # fmt: skip
    assert paired(first, {}, "right") is None


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("images", [1, 2, 9])
@pytest.mark.parametrize("of_image", [[1.0], [1.0, 0.0], [0.1, 0.1, 0.1]])
def test_images_that_all_differ_alike_leave_the_doubt_of_their_number(
    sign: int, images: int, of_image: list[float]
) -> None:
    """Of two images that one model is right about and the other is not, nothing follows with p = 0."""
    of = [f"image {place}" for place in range(images) for _ in of_image]
    better, worse = items(of_image * images, of), items([0.0] * len(of), of)
    first, second = (worse, better) if sign > 0 else (better, worse)
    found = paired(first, second, "right")
    assert found is not None and found["p"] == pytest.approx(stats.binomtest(images, images).pvalue, rel=1e-2)
    mean, exact = (
        sum(of_image) / len(of_image),
        stats.binomtest(images, images).proportion_ci(method="wilson"),
    )
    low, high = sorted((sign * found["low"], sign * found["high"]))
    assert found["difference"] == pytest.approx(sign * mean, abs=1e-4) and 0 < low < mean <= high <= 1
    if mean == 1:
        assert (low, high) == pytest.approx((exact.low, 1), abs=1e-4)


def test_every_pair_of_models_is_compared_once_second_minus_first() -> None:
    models = {"a": items([0, 0, 1, 1]), "b": items([0, 1, 1, 1]), "c": items([1, 1, 1, 1])}
    found = [(one["first"], one["second"], one["difference"]) for one in between_models(models, "right")]
    assert found == [("a", "b", 0.25), ("a", "c", 0.5), ("b", "c", 0.25)]


def test_languages_are_compared_on_the_items_that_all_of_them_have() -> None:
    found = over_languages(
        {"en": items([1, 1, 0, 1]), "zh": items([1, 0, 0]), "ar": items([1, 1, 0])}, "right"
    )
    assert found is not None
    assert (found["items"], found["right_in"]) == (3, {"0": 1, "1": 0, "2": 1, "3": 1})
    assert found["consistent"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["common_subset"]["en"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert over_languages({"en": items([1])}, "right") is None
