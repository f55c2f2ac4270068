"""From reviews to figures. A failure is counted beside them and enters none of them.

Relative score (LLaVA): the mean score of the answers over the mean score of the references, x 100. Above 100
is lawful. `pooled` is over all items, which is what VisCPM's tables call AVG; `macro` is the mean of the
categories' scores. A rating (UniMM-Bench) is the mean over the highest, x 100.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from pipelines.judge.items import Review
from pipelines.judge.reading import HIGHEST
from pipelines.judge.spec import Protocol


def scored(reviews: Sequence[Review], protocol: Protocol) -> dict[str, Any]:
    """The figures of one language and model: see the module. Percentages to two digits."""
    headline = [one for one in reviews if one.order == "reference_first"]
    categories = sorted({one.category for one in headline})
    by_category = {
        category: _figures([one for one in headline if one.category == category], protocol)
        for category in categories
    }
    values = [figures["score"] for figures in by_category.values() if figures["score"] is not None]
    pooled = _figures(headline, protocol)
    return {
        "judges": dict(sorted(Counter(one.judge for one in headline).items())),
        "categories": by_category,
        "pooled": pooled,
        "macro": {"score": round(fmean(values), 2) if values else None, "categories": len(values)},
        "failures": _failures(reviews),
        "place_bias": _place_bias(reviews) if protocol == "pair" else None,
    }


def lacking(count: int) -> str:
    """What a table says of so many reviews that the next run asks for again; "" where none failed."""
    return f"{count} review{'s' if count > 1 else ''} of the judge failed" if count else ""


def _figures(reviews: Sequence[Review], protocol: Protocol) -> dict[str, Any]:
    answers = [one.answer_score for one in reviews if one.answer_score is not None]
    figures: dict[str, Any] = {"judged": len(answers), "failed": len(reviews) - len(answers), "score": None}
    if not answers:
        return figures
    answer = fmean(answers)
    if protocol == "rating":
        return figures | {
            "score": round(answer / HIGHEST["rating"] * 100, 2),
            "mean_rating": round(answer, 4),
        }
    reference = fmean(one.reference_score for one in reviews if one.reference_score is not None)
    figures |= {"mean_answer": round(answer, 4), "mean_reference": round(reference, 4)}
    if reference > 0:
        figures["score"] = round(answer / reference * 100, 2)
        # LLaVA's script rounds the means to three digits first: 78.8 where the exact value is 78.7.
        figures["score_as_published"] = round(round(answer, 3) / round(reference, 3) * 100, 1)
    return figures


def _failures(reviews: Sequence[Review]) -> dict[str, Any]:
    reasons = Counter(one.failure for one in reviews if one.failure)
    share = reasons.total() / len(reviews) if reviews else 0.0
    return {"count": reasons.total(), "share": round(share, 4), "reasons": dict(sorted(reasons.items()))}


def _place_bias(reviews: Sequence[Review]) -> dict[str, Any] | None:
    """How much better an answer scores for standing first; None where no item was judged in both orders."""
    by_order: dict[str, dict[tuple[str, str], tuple[float, float]]] = {
        "reference_first": {},
        "answer_first": {},
    }
    for one in reviews:
        if one.answer_score is not None and one.reference_score is not None:
            by_order[one.order][one.id, one.language] = (one.answer_score, one.reference_score)
    second, first = by_order["reference_first"], by_order["answer_first"]
    both = sorted(second.keys() & first.keys())
    if not both:
        return None
    turned = sum(_preference(*second[key]) * _preference(*first[key]) < 0 for key in both)
    answer = fmean(first[key][0] - second[key][0] for key in both)
    reference = fmean(second[key][1] - first[key][1] for key in both)
    mean_answer = fmean((first[key][0] + second[key][0]) / 2 for key in both)
    mean_reference = fmean((first[key][1] + second[key][1]) / 2 for key in both)
    return {
        "items": len(both),
        "answer_gains_by_standing_first": round(answer, 4),
        "reference_gains_by_standing_first": round(reference, 4),
        "preferences_turned": round(turned / len(both), 4),
        "score_over_both_orders": round(mean_answer / mean_reference * 100, 2) if mean_reference else None,
    }


def _preference(answer: float, reference: float) -> int:
    return (answer > reference) - (answer < reference)
