"""Drift between the crawls of a source: the check that warns, and the plot."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from assets.checks import Check, Verdict
from assets.layout import Layout
from assets.partitions import crawl_record
from pipelines.filter.drift import Point, points, same_source
from pipelines.filter.spec import NAME as FILTERED_PAIRS
from pipelines.lake.manifest import Manifest

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 480, 200, 44, 40, 12
_MOST_POINTS = 24


def sources(layout: Layout) -> dict[str, str]:
    """Crawl -> its source, as its record says, of every crawl that was filtered."""
    found = {}
    for crawl in layout.crawls_with(FILTERED_PAIRS):
        record = crawl_record(layout.workspace, crawl)
        document: Any = yaml.safe_load(record.read_text(encoding="utf-8")) if record.is_file() else {}
        found[crawl] = str(document.get("source") or "")
    return found


def points_of(layout: Layout, crawl: str, tolerance: float) -> list[Point]:
    """The crawls of this crawl's source, in order."""
    tables = layout.crawls_with(FILTERED_PAIRS)
    return points({name: tables[name] for name in same_source(sources(layout), crawl)}, tolerance)


def keep_rate_in_band(layout: Layout, tolerance: float) -> Check:
    """Warns, and blocks nothing, when a crawl's keep rate leaves the band of those before it."""

    def judge(table: Path, _: Manifest) -> Verdict:
        found = points_of(layout, table.parent.name, tolerance)
        (own,) = (point for point in found if point.crawl == table.parent.name)
        if own.low is None or own.high is None:
            return Verdict(True, f"kept {own.keep_rate:.1%}; the first crawl of its source")
        words = (
            f"kept {own.keep_rate:.1%}; the crawls of this source before it: {own.low:.1%} to {own.high:.1%}"
        )
        return Verdict(own.inside, words)

    words = "The keep rate is like those of earlier crawls of the same source. Warns only."
    return Check("keep_rate_in_band", words, judge, blocking=False)


def shown(layout: Layout, tolerance: float, table: Path) -> dict[str, dg.MetadataValue[Any]]:
    """The plot of the keep rates, where the source has more than one crawl."""
    found = points_of(layout, table.parent.name, tolerance)
    if len(found) < 2:
        return {}
    picture = base64.b64encode(svg(found[-_MOST_POINTS:]).encode()).decode()
    return {"plot: drift": dg.MetadataValue.md(f"![keep rate by crawl](data:image/svg+xml;base64,{picture})")}


def svg(found: list[Point]) -> str:
    """Keep rate by crawl as dots, the band as a bar behind each; outside it a dot is red."""
    across, down = WIDTH - LEFT - 8, HEIGHT - TOP - BOTTOM

    def y(rate: float) -> float:
        return TOP + down * (1 - rate)

    parts = []
    for share in (0.0, 0.5, 1.0):
        parts.append(f'<path d="M{LEFT},{y(share):.1f}H{WIDTH - 8}" stroke="#ccc"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    step = across / len(found)
    for place, point in enumerate(found):
        x = LEFT + step * (place + 0.5)
        if point.low is not None and point.high is not None:
            height = max(1.0, y(point.low) - y(point.high))
            parts.append(
                f'<rect x="{x - min(14, step / 3):.1f}" y="{y(point.high):.1f}" width="{2 * min(14, step / 3):.1f}"'
                f' height="{height:.1f}" fill="#3b82f6" opacity="0.2"/>'
            )
        colour = "#3b82f6" if point.inside else "#d2451e"
        parts.append(f'<circle cx="{x:.1f}" cy="{y(point.keep_rate):.1f}" r="4.5" fill="{colour}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 22}" text-anchor="middle">{escape(point.crawl)}</text>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{point.keep_rate:.1%}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
        f'font-size="11" fill="#777">{"".join(parts)}</svg>'
    )
