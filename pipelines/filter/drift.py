"""Whether a crawl is like the ones before it of the same source: keep rate and scores over the crawls, and a band."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.lake import manifest

_SPREADS = 3.0
"""The band reaches so many standard deviations of the earlier keep rates to either side of their mean."""


@dataclass(frozen=True)
class Point:
    """What the filter found in one crawl."""

    crawl: str
    keep_rate: float
    median_score: float | None
    low: float | None
    high: float | None
    """The band that the crawls before it give; None for the first."""

    @property
    def inside(self) -> bool:
        return self.low is None or self.high is None or self.low <= self.keep_rate <= self.high


def points(filtered: Mapping[str, Path], tolerance: float) -> list[Point]:
    """The crawls of one source in their names' order, in which `week-10` comes after `week-2`."""
    found: list[Point] = []
    for crawl in sorted(filtered, key=_natural):
        made = manifest.read(filtered[crawl])
        earlier = [point.keep_rate for point in found]
        low, high = band(earlier, tolerance) if earlier else (None, None)
        rate = 1.0 if made.ledger is None else made.ledger.keep_rate
        median = made.metrics.get("quantiles", {}).get("0.5")
        found.append(Point(crawl, rate, median, low, high))
    return found


def band(earlier: Sequence[float], tolerance: float) -> tuple[float, float]:
    """Least and most keep rate to be expected: around the mean of earlier ones, `tolerance` at least."""
    reach = max(tolerance, _SPREADS * statistics.pstdev(earlier))
    middle = statistics.fmean(earlier)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def same_source(sources: Mapping[str, str], crawl: str) -> list[str]:
    """The crawls of the source that this crawl comes from, itself among them; a crawl without a source is alone."""
    source = sources.get(crawl, "")
    return [name for name in sources if name == crawl or (source and sources[name] == source)]


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers in a name by their value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
