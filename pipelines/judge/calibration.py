"""Drift between judges: what another judge says of the same answers, of which stored reviews tell what the first said.

Models behind a name change, and old ones are switched off. A pack of items with the reviews of the judge that
scores are compared with shows by how much the figures move for the judge's sake alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.judge.items import Review

_LEAST_FOR_A_CORRELATION = 3


def drift(stored: Sequence[Review], now: Sequence[Review]) -> dict[str, Any]:
    """The figures of `now` against `stored`, over the items that both have scores for.

    bias: mean of now - stored; spearman: rank correlation of the answers' scores (None where one judge gives all
    the same); flips: share of items on which the preference between answer and reference turned or came to or
    from a tie. The reference's mean should not move at all: it is the same text under both.
    """
    old = {(one.id, one.language): one for one in stored if one.answer_score is not None}
    new = {
        (one.id, one.language): one
        for one in now
        if one.answer_score is not None and one.order == "reference_first"
    }
    keys = sorted(old.keys() & new.keys())
    names = {"stored": sorted({one.judge for one in stored}), "now": sorted({one.judge for one in now})}
    counts = {"items": len(keys), "without_a_review_now": len(old) - len(keys)}
    if not keys:
        return {"judges": names, **counts}
    before, after = _scores([old[key] for key in keys]), _scores([new[key] for key in keys])
    found: dict[str, Any] = {
        "judges": names,
        **counts,
        "bias_of_answers": round(float(np.mean(after[:, 0] - before[:, 0])), 4),
        "spearman": spearman(before[:, 0], after[:, 0]),
    }
    if not np.isnan(before).any() and not np.isnan(after).any():
        preferred = [np.sign(scores[:, 0] - scores[:, 1]) for scores in (before, after)]
        means = [scores.mean(axis=0) for scores in (before, after)]
        found |= {
            "bias_of_references": round(float(means[1][1] - means[0][1]), 4),
            "flips": round(float(np.mean(preferred[0] != preferred[1])), 4),
            "score_stored": round(float(means[0][0] / means[0][1] * 100), 2),
            "score_now": round(float(means[1][0] / means[1][1] * 100), 2),
        }
    return found


def spearman(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float | None:
    """The correlation of the ranks; equal values share the mean of their ranks."""
    if len(one) < _LEAST_FOR_A_CORRELATION or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return round(float(np.corrcoef(_ranks(one), _ranks(other))[0, 1]), 4)


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[places], dtype=np.float64)


def _scores(reviews: Sequence[Review]) -> npt.NDArray[np.float64]:
    """(items, 2): the scores of the answer and of the reference, which a rating has not."""
    nan = float("nan")
    return np.array(
        [
            [nan if score is None else score for score in (one.answer_score, one.reference_score)]
            for one in reviews
        ]
    )
