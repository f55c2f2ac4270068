"""Scoring: from answers to scores.json, by model, language and category, each score with its interval.

models.<name>.mmmb.<language>      circular (right in every rotation), plain (right as published),
                                   unresolved (answers that choose nothing), by_category, extraction
models.<name>.open.<language>      content (right value, in any language), content_in_asked_language,
                                   unresolved, by_category
models.<name>.language.<language>  asked (share of the decided answers in the asked language), decided,
                                   abstained, answers_in, by_category; of the open answers alone, since a
                                   letter is of no language
models.<name>.complete             whether every expected question was answered
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.benchmarks import answers as answers_table
from pipelines.benchmarks import suite
from pipelines.benchmarks.answers import Answer
from pipelines.benchmarks.extraction import choice, open_answer
from pipelines.benchmarks.language import detect
from pipelines.benchmarks.open_questions import Concept
from pipelines.benchmarks.statistics import estimate
from pipelines.benchmarks.suite import Asked, Key
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.score_answers.spec import ScoreAnswersSpec
from pipelines.stage import Outcome, Work

NAMED_MISSING = 10
"""How many of the unanswered questions are named."""


@dataclass(frozen=True)
class Judged:
    """One scored item: its category, image (the cluster) and values in [0, 1]."""

    category: str
    image: str
    values: dict[str, float]


def run(spec: ScoreAnswersSpec, work: Work, progress: Progress) -> Outcome:
    """Write scores.json."""
    answered = {name: answers_table.read(table) for name, table in spec.answers.items()}
    languages = sorted({key[1] for answers in answered.values() for key in answers})
    asked = suite.load(spec.benchmarks, languages)
    progress.start("models", len(answered), unit="model")
    models = {}
    for name, answers in answered.items():
        models[name] = score(asked, answers, languages, where=spec.answers[name])
        progress.advance()
    complete = all(model["complete"]["complete"] for model in models.values())
    document = {"languages": languages, "complete": complete, "models": models}
    text = json.dumps(document, ensure_ascii=False, indent=1)
    (work.out / "scores.json").write_text(text + "\n", encoding="utf-8")
    return Outcome(metrics={"complete": complete, "models": summary(models)})


def score(
    asked: Sequence[Asked], answers: dict[Key, Answer], languages: Sequence[str], *, where: Path
) -> dict[str, Any]:
    """The scores of one model. An unanswered question is wrong, and makes the scores incomplete.

    Raises:
        BadInput: the answers are to other questions.
    """
    expected = {one.key: one for one in asked}
    for key, row in answers.items():
        if key not in expected or row["image_sha256"] != expected[key].image_sha256:
            raise BadInput(
                f"the answer to {key} belongs to another benchmark",
                where=manifest.file(where, answers_table.FILE),
                remedy="ask the model again with this benchmark table",
            )
    missing = [" ".join(map(str, key)) for key in expected if key not in answers]
    said = {key: answers[key]["answer"] if key in answers else "" for key in expected}
    by_language = {language: [one for one in asked if one.language == language] for language in languages}
    return {
        "complete": {
            "complete": not missing,
            "expected": len(expected),
            "answered": len(expected) - len(missing),
            "missing": missing[:NAMED_MISSING],
        },
        "mmmb": {language: _choices(of_one, said) for language, of_one in by_language.items()},
        "open": {language: _open(of_one, said) for language, of_one in by_language.items()},
        "language": {
            language: _language(of_one, said, languages) for language, of_one in by_language.items()
        },
    }


def _choices(asked: Sequence[Asked], said: dict[Key, str]) -> dict[str, Any]:
    """Circular accuracy: an item is right only if the right option was chosen in every rotation."""
    items: dict[str, list[Asked]] = {}
    for one in asked:
        if one.benchmark == "mmmb":
            items.setdefault(one.item, []).append(one)
    extraction: Counter[str] = Counter()
    judged = []
    for rotations in items.values():
        chosen = [choice(said[one.key], one.options) for one in rotations]
        extraction.update(found.how for found in chosen)
        right = [found.letter == one.gold for found, one in zip(chosen, rotations, strict=True)]
        unresolved = sum(found.letter is None for found in chosen) / len(chosen)
        values = {"circular": float(all(right)), "plain": float(right[0]), "unresolved": unresolved}
        judged.append(Judged(rotations[0].category, rotations[0].image_sha256, values))
    return {
        **_estimates(judged, ("circular", "plain", "unresolved")),
        "by_category": _by_category(judged, ("circular", "plain")),
        "extraction": dict(sorted(extraction.items())),
    }


def _open(asked: Sequence[Asked], said: dict[Key, str]) -> dict[str, Any]:
    """Whether the right value was said, in whatever language; and whether in the asked one."""
    questions = [one for one in asked if one.benchmark == "open"]
    values: dict[str, list[Concept]] = {}
    for one in questions:
        of_topic = values.setdefault(one.category, [])
        if one.concept not in of_topic:
            of_topic.append(one.concept)
    judged = []
    for one in questions:
        found = open_answer(said[one.key], one.concept, values[one.category])
        judged.append(
            Judged(
                one.category,
                one.image_sha256,
                {
                    "content": float(found.right),
                    "content_in_asked_language": float(found.right and found.languages == {one.language}),
                    "unresolved": float(not found.resolved),
                },
            )
        )
    names = ("content", "content_in_asked_language", "unresolved")
    return {**_estimates(judged, names), "by_category": _by_category(judged, names[:2])}


def _language(asked: Sequence[Asked], said: dict[Key, str], languages: Sequence[str]) -> dict[str, Any]:
    """The share of the answers in the asked language, of those whose language can be told."""
    questions = [one for one in asked if one.benchmark == "open"]
    found = [detect(said[one.key], languages) for one in questions]
    judged = [
        Judged(one.category, one.image_sha256, {"asked": float(language == one.language)})
        for one, language in zip(questions, found, strict=True)
        if language is not None
    ]
    return {
        **_estimates(judged, ("asked",)),
        "decided": len(judged),
        "abstained": len(found) - len(judged),
        "answers_in": dict(sorted(Counter(language for language in found if language).items())),
        "by_category": _by_category(judged, ("asked",)),
    }


def _estimates(judged: Sequence[Judged], names: Sequence[str]) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for name in names:
        found = estimate([one.values[name] for one in judged], [one.image for one in judged])
        scores[name] = None if found is None else found.document()
    return scores


def _by_category(judged: Sequence[Judged], names: Sequence[str]) -> dict[str, Any]:
    categories = sorted({one.category for one in judged})
    return {
        category: _estimates([one for one in judged if one.category == category], names)
        for category in categories
    }


def summary(models: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """The headline figures by model, such as "mmmb circular zh"."""

    def value(found: dict[str, Any] | None) -> float | None:
        return None if found is None else found["value"]

    headline: dict[str, Callable[[dict[str, Any], str], float | None]] = {
        "mmmb circular": lambda model, language: value(model["mmmb"][language]["circular"]),
        "open content": lambda model, language: value(model["open"][language]["content"]),
        "asked language": lambda model, language: value(model["language"][language]["asked"]),
    }
    return {
        name: {
            f"{label} {language}": of(model, language)
            for label, of in headline.items()
            for language in model["mmmb"]
        }
        for name, model in models.items()
    }
