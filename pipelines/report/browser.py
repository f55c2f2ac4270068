"""Answers to read one by one, with what each profile took them to say, or what the judge wrote on them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.benchmarks.question import Asked, Key
from pipelines.judge.items import Item, item_of, review_of
from pipelines.judge.items import Review as JudgesReview
from pipelines.report.benchmark_results import BrowsedAnswer, Reading, Review

KINDS = ("profiles disagree", "wrong", "right")
RATED = ("review failed", "rated lowest", "rated highest")


def answers(readings: Path, asked: Mapping[Key, Asked], *, per_place: int) -> list[BrowsedAnswer]:
    """At most so many answers per benchmark and language: a third of each kind, the models in turn, in file order."""
    kept: dict[tuple[str, str, str, str], list[BrowsedAnswer]] = defaultdict(list)
    most = max(1, per_place // len(KINDS))
    for line in _lines(readings):
        key: Key = tuple(line["key"])
        if line["answer"] is None or key not in asked:
            continue
        rights = [right for _, _, right in line["read"].values()]
        why = KINDS[0] if len(set(rights)) > 1 else KINDS[2] if all(rights) else KINDS[1]
        place = (key[0], key[1], why, line["model"])
        if len(kept[place]) < most:
            kept[place].append(_browsed(line, asked[key], why))
    models = max(1, len({model for *_, model in kept}))
    share = -(-most // models)
    found = [one for place in kept for one in kept[place][:share]]
    return sorted(found, key=lambda one: (one.benchmark, one.language, KINDS.index(one.why)))


def rated_answers(reviews: Path, *, per_place: int) -> list[BrowsedAnswer]:
    """At most so many judged answers per benchmark and language: those whose review failed, the lowest and the highest
    rated, a third each, shared by the models.
    """
    places: dict[tuple[str, str], dict[str, list[Rated]]] = defaultdict(lambda: defaultdict(list))
    for line in _lines(reviews):
        item = item_of(line["item"])
        found = [review_of(one) for one in line["reviews"]]
        places[line["benchmark"], item.language][line["model"]].append((item, found))
    shown = []
    for (benchmark, language), models in places.items():
        share = max(1, per_place // len(RATED) // len(models))
        for why in RATED:
            for model, rated in models.items():
                shown += [_rated(benchmark, language, model, one, why) for one in _such(rated, why, share)]
    return shown


Rated = tuple[Item, list[JudgesReview]]
"""An answer and its reviews, reference first before the other order."""


def _such(rated: Sequence[Rated], why: str, share: int) -> list[Rated]:
    if why == RATED[0]:
        return [one for one in rated if any(review.failure for review in one[1])][:share]
    whole = [(score, one) for one in rated if (score := one[1][0].answer_score) is not None]
    ordered = [one for _, one in sorted(whole, key=lambda pair: pair[0])]
    # Nothing is shown twice where there are few.
    least = min(share, -(-len(ordered) // 2))
    return ordered[:least] if why == RATED[1] else ordered[least:][-share:][::-1]


def _rated(benchmark: str, language: str, model: str, rated: Rated, why: str) -> BrowsedAnswer:
    item, reviews = rated
    return BrowsedAnswer(
        benchmark=benchmark,
        language=language,
        item=item.id,
        rotation=0,
        model=model,
        question=item.question,
        options=[],
        gold=item.reference,
        answer=item.answer,
        readings=[],
        reviews=[
            Review(
                judge=one.judge,
                order=one.order,
                reference_score=one.reference_score,
                answer_score=one.answer_score,
                failure=one.failure,
                text=one.text,
            )
            for one in reviews
        ],
        why=why,
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def _browsed(line: Mapping[str, Any], asked: Asked, why: str) -> BrowsedAnswer:
    return BrowsedAnswer(
        benchmark=asked.benchmark,
        language=asked.language,
        item=asked.item,
        rotation=asked.rotation,
        model=line["model"],
        question=asked.question,
        options=list(asked.options),
        gold=asked.gold,
        answer=line["answer"],
        readings=[
            Reading(profile=profile, said=said, how=how, right=right)
            for profile, (said, how, right) in line["read"].items()
        ],
        why=why,
    )
