"""Guarantees of drift: a crawl whose keep rate leaves the band of earlier ones of its source warns, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets import drift
from assets.layout import Layout
from assets.partitions import crawl_record
from pipelines.filter.drift import band, points
from pipelines.lake import manifest
from pipelines.lake.ledger import Ledger
from tests import tables


def filtered(layout: Layout, crawl: str, rate: float, source: str) -> Path:
    table = tables.filtered_pairs(layout.crawl_table(crawl, "filtered_pairs"), [])
    made = manifest.read(table)
    kept = round(rate * 1000)
    ledger = Ledger.of(kept=kept, reasons=["score_below_threshold"] * (1000 - kept))
    metrics = {"quantiles": {"0.5": 0.2}}
    manifest.write(table, made.model_copy(update={"ledger": ledger, "metrics": metrics}))
    crawl_record(layout.workspace, crawl).write_text(f"crawl: {crawl}\nsource: {source!r}\n")
    return table


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path, "test")
    for number, rate in ((1, 0.70), (2, 0.72), (10, 0.71)):
        filtered(layout, f"week-{number}", rate, "https://example.org/list")
    filtered(layout, "other", 0.1, "https://example.org/another")
    return layout


def test_a_crawl_is_held_against_earlier_ones_of_its_source_only(layout: Layout) -> None:
    assert [point.crawl for point in drift.points_of(layout, "week-2", 0.05)] == [
        "week-1",
        "week-2",
        "week-10",
    ]
    check = drift.keep_rate_in_band(layout, 0.05)
    assert not check.blocking
    verdict = check.judge(layout.crawl_table("week-10", "filtered_pairs"), None)  # type: ignore[arg-type]
    assert verdict.passed and "66.0% to 76.0%" in verdict.words
    first = check.judge(layout.crawl_table("other", "filtered_pairs"), None)  # type: ignore[arg-type]
    assert first.passed and "first crawl of its source" in first.words


def test_a_keep_rate_outside_the_band_warns(layout: Layout) -> None:
    table = filtered(layout, "week-11", 0.4, "https://example.org/list")
    verdict = drift.keep_rate_in_band(layout, 0.05).judge(table, None)  # type: ignore[arg-type]
    assert not verdict.passed and "kept 40.0%" in verdict.words


def test_crawls_without_a_source_are_not_compared(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "test")
    for name, rate in (("a", 0.9), ("b", 0.1)):
        filtered(layout, name, rate, "")
    assert len(drift.points_of(layout, "b", 0.05)) == 1
    assert drift.shown(layout, 0.05, layout.crawl_table("b", "filtered_pairs")) == {}


def test_the_plot_names_every_crawl_and_marks_the_one_outside(layout: Layout) -> None:
    filtered(layout, "week-11", 0.4, "https://example.org/list")
    found = drift.points_of(layout, "week-1", 0.05)
    picture = drift.svg(found)
    assert all(f">{point.crawl}<" in picture for point in found)
    assert picture.count('fill="#d2451e"') == 1


def test_a_steady_source_gets_the_tolerance_and_a_changeable_one_more() -> None:
    assert band([0.5, 0.5], 0.1) == pytest.approx((0.4, 0.6))
    low, high = band([0.3, 0.7], 0.1)
    assert low == 0.0 and high == 1.0
    assert points({}, 0.1) == []
