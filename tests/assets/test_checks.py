"""The checks on scores: judge failures block, regressions warn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from assets import checks
from pipelines.lake.manifest import Manifest


def manifest(**metrics: Any) -> Manifest:
    return Manifest(
        stage="scores", code_version="2", fingerprint="f", parameters={}, inputs={}, files=[], metrics=metrics,
        created="2026-01-02", seconds=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(("rate", "passed"), [(0.0, True), (0.05, True), (0.06, False), (None, False)])
def test_too_many_failed_reviews_block(rate: float | None, passed: bool) -> None:
    check = checks.judge_failures(0.05)
    assert check.blocking
    assert check.judge(Path(), manifest(judge_failure_rate=rate, judge="some-judge")).passed is passed


def test_a_headline_below_the_best_of_the_last_runs_is_named_with_that_run() -> None:
    check = checks.no_regression(0.02, runs=3)
    assert not check.blocking

    def run(day: int, **headlines: float | None) -> dict[str, Any]:
        return {
            "created": f"2026-01-0{day}",
            **{f"blend, {name}": value for name, value in headlines.items()},
        }

    def judged(now: dict[str, float | None], *runs: dict[str, Any]) -> checks.Verdict:
        return check.judge(Path(), manifest(models={"blend": now}, runs=list(runs)))

    # Each step is within the limit; together they are not.
    decay = [run(1, en=0.9, zh=0.8), run(2, en=0.885, zh=0.8), run(3, en=0.87, zh=None)]
    verdict = judged({"en": 0.86, "zh": 0.8, "new": 0.1}, *decay)
    assert not verdict.passed
    assert verdict.words == (
        "against the best of 3 earlier runs, back to 2026-01-01: blend, en: 0.9 (scores of 2026-01-01) -> 0.86"
    )
    # A run that lies further back than three is forgotten.
    assert judged({"en": 0.86}, run(1, en=1.0), *(run(day, en=0.86) for day in (2, 3, 4))).passed
    assert judged({"en": 0.5, "zh": None}).passed
    assert judged({"en": 0.87, "zh": None}, *decay[1:]).passed


def test_a_headline_that_is_gone_and_how_many_more_fell_are_told() -> None:
    check = checks.no_regression(0.02, runs=3)
    runs = [{"created": "2026-01-01", **{f"blend, {name}": 0.9 for name in "abcdefgh"}}]
    verdict = check.judge(Path(), manifest(models={"blend": dict.fromkeys("abcdefg", 0.9) | {"g": None}}, runs=runs))  # fmt: skip
    assert not verdict.passed and verdict.words.endswith(
        "scored in the last run and not in this one: blend, g; blend, h"
    )
    fell = check.judge(Path(), manifest(models={"blend": dict.fromkeys("abcdefgh", 0.1)}, runs=runs))
    assert "blend, e: 0.9" in fell.words and fell.words.endswith(" and 3 more")


def test_points_are_held_to_a_share_of_their_best() -> None:
    check = checks.no_regression(0.02, runs=3)
    runs = [{"created": "2026-01-01", "blend, mme score en": 1000.0}]
    assert check.judge(Path(), manifest(models={"blend": {"mme score en": 981.0}}, runs=runs)).passed
    assert not check.judge(Path(), manifest(models={"blend": {"mme score en": 979.0}}, runs=runs)).passed
