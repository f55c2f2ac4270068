"""Scores beside each other: models on the same items, one model over languages, the items that all have.

Paired tests take the difference item by item, so that what is hard for both models cancels (Miller 2024, section 4);
their error is clustered by image like a single score's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from pipelines.benchmarks.benchmark import Judged
from pipelines.benchmarks.statistics import Z95, clustered_error, estimate, wilson

NO_SPREAD = 1e-12
"""An error below this is the rounding of one that is zero."""
Items = Mapping[str, Judged]
"""Items by name."""


def paired(first: Items, second: Items, figure: str) -> dict[str, Any] | None:
    """Mean of second minus first over the items that both have, with 95 % interval and two-sided p; None if there are none.

    The p value is of the normal approximation. It is 1 where no item differs. Where all images differ alike there is no
    spread to tell chance by: p is then the sign test's over the images, and the interval Wilson's.
    """
    names = [name for name in first if name in second and figure in first[name].values]
    if not names:
        return None
    differences = [second[name].values[figure] - first[name].values[figure] for name in names]
    mean = math.fsum(differences) / len(names)
    images = [first[name].image for name in names]
    error = clustered_error(differences, images)
    low, high = mean - Z95 * error, mean + Z95 * error
    if abs(mean) < NO_SPREAD and error < NO_SPREAD:
        p = 1.0
    elif error < NO_SPREAD:
        count = len(set(images))
        p = min(1.0, 2 * 0.5**count)
        sure, _ = wilson(count, count)
        low, high = sorted((mean * sure, math.copysign(1 - (1 - abs(mean)) * sure, mean)))
    else:
        p = math.erfc(abs(mean) / error / math.sqrt(2))
    return {
        "difference": round(mean, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "p": float(f"{p:.3g}"),
        "n": len(names),
        "better": sum(one > 0 for one in differences),
        "worse": sum(one < 0 for one in differences),
    }


def between_models(models: Mapping[str, Items], figure: str) -> list[dict[str, Any]]:
    """Every pair of models, in their order."""
    found = []
    for first, second in combinations(models, 2):
        if (test := paired(models[first], models[second], figure)) is not None:
            found.append({"first": first, "second": second, **test})
    return found


def over_languages(languages: Mapping[str, Items], figure: str) -> dict[str, Any] | None:
    """One model on the items that every language has: scores on this common subset, and in how many languages an
    item is right. None for a single language or where nothing is common.
    """
    if len(languages) < 2:
        return None
    common = sorted(set.intersection(*(set(items) for items in languages.values())))
    common = [name for name in common if all(figure in items[name].values for items in languages.values())]
    if not common:
        return None
    right = Counter(sum(items[name].values[figure] >= 1 for items in languages.values()) for name in common)
    scores = {
        language: estimate(
            [items[name].values[figure] for name in common], [items[name].image for name in common]
        )
        for language, items in languages.items()
    }
    return {
        "languages": list(languages),
        "items": len(common),
        "common_subset": {
            language: None if one is None else one.document() for language, one in scores.items()
        },
        "right_in": {str(count): right[count] for count in range(len(languages) + 1)},
        "consistent": round((right[0] + right[len(languages)]) / len(common), 4),
    }
