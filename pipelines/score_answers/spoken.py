"""In which languages a model answers: the share of its answers in words that are in the asked language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.benchmarks import scoring
from pipelines.benchmarks.answers import Answer
from pipelines.benchmarks.benchmark import Judged, catalogue
from pipelines.benchmarks.language import detect
from pipelines.benchmarks.question import Asked, Key


def spoken_language(
    asked: Sequence[Asked], answers: Mapping[Key, Answer], language: str, languages: Sequence[str]
) -> dict[str, Any] | None:
    """The share of the answers in the asked language, of those in words whose language can be told."""
    questions = [one for one in asked if one.language == language and catalogue()[one.benchmark].speaks]
    if not questions:
        return None
    said = [answers[one.key]["answer"] or "" if one.key in answers else "" for one in questions]
    found = [detect(text, languages) for text in said]
    told = [
        Judged(one.item, one.category, one.image_sha256, {"asked": float(spoken == language)})
        for one, spoken in zip(questions, found, strict=True)
        if spoken is not None
    ]
    share = scoring.mean(told, "asked")
    categories = sorted({one.category for one in told})
    of_category = {
        name: scoring.mean([one for one in told if one.category == name], "asked") for name in categories
    }
    return {
        "asked": None if share is None else share.document(),
        "decided": len(told),
        "abstained": len(found) - len(told),
        "answers_in": dict(sorted(Counter(spoken for spoken in found if spoken).items())),
        "by_category": {
            name: {"asked": None if one is None else one.document()} for name, one in of_category.items()
        },
    }
