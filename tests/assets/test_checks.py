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


def test_a_headline_that_falls_is_named_and_warned_of() -> None:
    check = checks.no_regression(0.02)
    assert not check.blocking
    previous = {
        "created": "2026-01-01",
        "models": {"blend": {"mmmb circular en": 0.9, "mmmb circular zh": 0.8, "gone": 1.0}},
    }
    now = {"blend": {"mmmb circular en": 0.89, "mmmb circular zh": 0.7, "new": 0.1}}
    verdict = check.judge(Path(), manifest(models=now, previous=previous))
    assert not verdict.passed and verdict.words == (
        "since the scores of 2026-01-01: blend, mmmb circular zh: 0.8 -> 0.7"
    )
    assert check.judge(Path(), manifest(models=now)).passed
    assert check.judge(Path(), manifest(models=previous["models"], previous=previous)).passed
