"""Scores with their uncertainty: standard errors clustered by image, 95 % intervals.

Items about one image are not independent, so the standard error sums over images (Miller 2024,
"Adding error bars to evals", equation 4): SE = sqrt(sum over clusters c of d_c^2) / n, with
d_c = sum over the items i of c of (s_i - mean).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """The mean of `n` values in [0, 1] from `clusters` clusters; `low` to `high` is its 95 % interval."""

    value: float
    low: float
    high: float
    standard_error: float
    n: int
    clusters: int

    def document(self) -> dict[str, float | int]:
        """Plain JSON, floats to four digits."""
        return {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion; 0 to 1 where nothing was counted."""
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered_error(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """The standard error of the mean of `values` whose clusters are independent of each other, not the values."""
    mean = math.fsum(values) / len(values)
    deviations: dict[Hashable, float] = defaultdict(float)
    for value, cluster in zip(values, clusters, strict=True):
        deviations[cluster] += value - mean
    return math.sqrt(math.fsum(deviation**2 for deviation in deviations.values())) / len(values)


def estimate(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate | None:
    """The mean of `values` with its interval; None where there are none.

    With clusters, the interval is the mean plus or minus 1.96 clustered standard errors. Wilson's is
    used without clusters, and where all values are equal: that clustered error of zero would say
    that there is no doubt left. There it counts a cluster as one observation.
    """
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    names: Sequence[Hashable] = range(n) if clusters is None else clusters
    error = clustered_error(values, names)
    distinct = len(set(names))
    if clusters is None or min(values) == max(values):
        low, high = wilson(mean * distinct, distinct)
    else:
        low, high = max(0.0, mean - Z95 * error), min(1.0, mean + Z95 * error)
    return Estimate(mean, low, high, error, n, distinct)


def weighted_sum(parts: Sequence[tuple[float, Estimate]]) -> Estimate | None:
    """The sum of weight times estimate, as MME's points are; None where there are none.

    Parts that share their images, as the two of one task do, are not independent: variances are doubled, which is
    the most that pairs of parts can add.
    """
    if not parts:
        return None
    value = math.fsum(weight * part.value for weight, part in parts)

    def root(deviations: Sequence[float]) -> float:
        return math.sqrt(2 * math.fsum(deviation**2 for deviation in deviations))

    return Estimate(
        value,
        max(0.0, value - root([weight * (part.value - part.low) for weight, part in parts])),
        min(
            math.fsum(weight for weight, _ in parts),
            value + root([weight * (part.high - part.value) for weight, part in parts]),
        ),
        root([weight * part.standard_error for weight, part in parts]),
        sum(part.n for _, part in parts),
        sum(part.clusters for _, part in parts),
    )


def mean_of_means(groups: Sequence[tuple[Sequence[float], Sequence[Hashable]]]) -> Estimate | None:
    """The unweighted mean of the groups' means, as lmms-eval averages MMStar; a group is (values, clusters)."""
    means = [found for values, clusters in groups if (found := estimate(values, clusters)) is not None]
    if not means:
        return None

    def root(deviations: Sequence[float]) -> float:
        return math.sqrt(math.fsum(deviation**2 for deviation in deviations)) / len(means)

    value = math.fsum(one.value for one in means) / len(means)
    return Estimate(
        value,
        max(0.0, value - root([one.value - one.low for one in means])),
        min(1.0, value + root([one.high - one.value for one in means])),
        root([one.standard_error for one in means]),
        sum(one.n for one in means),
        sum(one.clusters for one in means),
    )
