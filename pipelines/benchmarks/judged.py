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

Rated = tuple[float, float, str]
"""The scores of an answer and of its reference, and the image."""


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
    `macro` is the mean of the categories' relative scores. `without_answer` counts the items that there was nothing to
    judge of, missing or refused: they enter no score.
    """
    protocol: Protocol = "rating" if benchmark.protocol == "rating" and by.server is not None else "pair"
    figures = scored(reviews, protocol)
    images = {one.item: one.image_sha256 for one in asked}
    headline = [one for one in reviews if one.order == "reference_first"]
    full = HIGHEST["rating"] if protocol == "rating" else None
    categories = sorted({one.category for one in headline})
    rated = {
        name: _rated([one for one in headline if one.category == name], images, full) for name in categories
    }
    macro = _ratio([of for of in rated.values() if of])

    def relative(of: Sequence[Rated]) -> dict[str, float | int] | None:
        found = _ratio([of])
        return None if found is None else found.document()

    return {
        "headline": "relative",
        "items": len(headline),
        "without_answer": len(images.keys() - {one.id for one in headline}),
        "judge": by.name,
        "is_a_model": by.server is not None,
        "relative": relative([one for of in rated.values() for one in of]),
        "macro": None if macro is None else macro.document(),
        "by_category": {name: {"relative": relative(of)} for name, of in rated.items()},
        "judgement": figures,
        "failed": figures["failures"]["share"],
        "profiles": {},
        "extraction_cost": {},
    }


def _rated(reviews: Sequence[Review], images: Mapping[str, str], full: float | None) -> list[Rated]:
    """Those that did not fail; `full` stands in the place of the reference's score where there is none."""
    found = [
        (one.answer_score, full if full is not None else one.reference_score, images[one.id])
        for one in reviews
    ]
    return [
        (answer, reference, image)
        for answer, reference, image in found
        if answer is not None and reference is not None
    ]


def _ratio(groups: Sequence[Sequence[Rated]]) -> Estimate | None:
    """The mean over the groups of mean answer over mean reference; its error by the delta method, clustered by image.

    Groups may share images: what an image moves in all of them is added up before it is squared.
    """
    moves: list[float] = []
    clusters: list[str] = []
    values: list[float] = []
    rated = sum(map(len, groups))
    for group in groups:
        total = math.fsum(reference for _, reference, _ in group)
        if total <= 0:
            return None
        value = math.fsum(answer for answer, _, _ in group) / total
        # What an item moves the mean of the groups by, times the number of all items, by which the error is divided.
        moves += [
            (answer - value * reference) / total / len(groups) * rated for answer, reference, _ in group
        ]
        clusters += [image for _, _, image in group]
        values.append(value)
    if not values:
        return None
    score = math.fsum(values) / len(values)
    error = clustered_error(moves, clusters)
    return Estimate(
        score, max(0.0, score - Z95 * error), score + Z95 * error, error, len(moves), len(set(clusters))
    )
