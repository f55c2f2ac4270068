"""Benchmarks that a judge rates: what it is given, and the scores that come of its reviews.

A review that failed is counted beside the scores and enters none of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.benchmarks.answers import Answer
from pipelines.benchmarks.benchmark import Benchmark, Judged
from pipelines.benchmarks.question import Asked, Key
from pipelines.benchmarks.statistics import Z95, Estimate, clustered_error
from pipelines.judge.aggregate import scored
from pipelines.judge.items import Item, Review
from pipelines.judge.reading import HIGHEST
from pipelines.judge.spec import Judge, Protocol


def judge_items(asked: Sequence[Asked], answers: Mapping[Key, Answer]) -> list[Item]:
    """What there is to judge: the questions that were answered, an empty answer included."""
    return [
        Item(
            id=one.item,
            language=one.language,
            category=one.category,
            question=one.question,
            reference=one.gold,
            answer=said,
            context=one.details.get("context", ""),
            human_answers=tuple(part for part in [one.details.get("human_answers", "")] if part),
            rationale=one.details.get("rationale", ""),
            image=one.image_sha256,
        )
        for one in asked
        if one.key in answers and (said := answers[one.key]["answer"]) is not None
    ]


def rated_items(asked: Sequence[Asked], reviews: Sequence[Review], by: Judge, protocol: str) -> list[Judged]:
    """The items with a rating in [0, 1], for comparisons; without those whose review failed."""
    highest = HIGHEST["rating" if protocol == "rating" and by.server is not None else "pair"]
    images = {one.item: one.image_sha256 for one in asked}
    return [
        Judged(one.id, one.category, images[one.id], {"rating": one.answer_score / highest})
        for one in reviews
        if one.answer_score is not None and one.order == "reference_first"
    ]


def document(
    benchmark: Benchmark, asked: Sequence[Asked], reviews: Sequence[Review], by: Judge
) -> dict[str, Any]:
    """One judged benchmark in one language, as plain JSON.

    `relative` is the mean of the answers over that of the references, or over the highest rating; above 1 is lawful.
    """
    protocol: Protocol = "rating" if benchmark.protocol == "rating" and by.server is not None else "pair"
    figures = scored(reviews, protocol)
    images = {one.item: one.image_sha256 for one in asked}
    headline = [one for one in reviews if one.order == "reference_first"]

    def relative(of: Sequence[Review]) -> dict[str, float | int] | None:
        found = _ratio(of, images, HIGHEST["rating"] if protocol == "rating" else None)
        return None if found is None else found.document()

    return {
        "headline": "relative",
        "items": len(headline),
        "judge": by.name,
        "is_a_model": by.server is not None,
        "relative": relative(headline),
        "by_category": {
            category: {"relative": relative([one for one in headline if one.category == category])}
            for category in sorted({one.category for one in headline})
        },
        "judgement": figures,
        "failed": figures["failures"]["share"],
        "profiles": {},
        "extraction_cost": {},
    }


def _ratio(reviews: Sequence[Review], images: Mapping[str, str], highest: float | None) -> Estimate | None:
    """Mean answer over mean reference with its error by the delta method, clustered by image."""
    pairs = [
        (one.answer_score, highest if highest is not None else one.reference_score, images[one.id])
        for one in reviews
        if one.answer_score is not None
    ]
    whole = [(answer, reference, image) for answer, reference, image in pairs if reference is not None]
    total = math.fsum(reference for _, reference, _ in whole)
    if total <= 0:
        return None
    value = math.fsum(answer for answer, _, _ in whole) / total
    mean = total / len(whole)
    residuals = [(answer - value * reference) / mean for answer, reference, _ in whole]
    clusters = [image for _, _, image in whole]
    error = clustered_error(residuals, clusters)
    low = max(0.0, value - Z95 * error)
    return Estimate(value, low, value + Z95 * error, error, len(whole), len(set(clusters)))
