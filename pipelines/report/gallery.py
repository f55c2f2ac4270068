"""Held-out images with what was asked about them and what each model said."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from pipelines.benchmarks.answers import Answer
from pipelines.benchmarks.extraction import choice, open_answer
from pipelines.benchmarks.question import Asked, Concept, Key
from pipelines.report.results import GalleryAnswer, GalleryItem, GalleryQuestion, Verdict

OPEN_SHARE = 2 / 3
"""Share of open questions among the items shown: their answers say more to a reader."""


def gallery(asked: Sequence[Asked], answers: dict[str, dict[Key, Answer]], count: int) -> list[GalleryItem]:
    """The first items of each category, open ones before those with options; not chosen by how they went."""
    shown = [one for one in asked if one.rotation == 0]
    languages = list(dict.fromkeys(one.language for one in shown))
    by_key = {one.key: one for one in shown}
    values: dict[str, list[Concept]] = {}
    for one in shown:
        if one.concept and one.concept not in values.setdefault(one.category, []):
            values[one.category].append(one.concept)
    opened = round(count * OPEN_SHARE)
    chosen = _first_of_each(shown, "open", opened) + _first_of_each(shown, "mmmb", count - opened)
    items = []
    for first in chosen:
        questions = []
        for language in languages:
            found = by_key.get((first.benchmark, language, first.item, 0))
            if found is not None:
                questions.append(_question(found, answers, values.get(found.category, [])))
        items.append(
            GalleryItem(
                benchmark=first.benchmark,
                item=first.item,
                category=first.category,
                image_sha256=first.image_sha256,
                questions=questions,
            )
        )
    return items


def _first_of_each(asked: Sequence[Asked], benchmark: str, count: int) -> list[Asked]:
    """`count` items, the categories in turn, each image once."""
    by_category: dict[str, list[Asked]] = {}
    seen: set[str] = set()
    for one in asked:
        if one.benchmark == benchmark and one.image_sha256 not in seen:
            seen.add(one.image_sha256)
            by_category.setdefault(one.category, []).append(one)
    turns: list[tuple[Asked | None, ...]] = list(zip_longest(*by_category.values()))
    in_turn = [one for turn in turns for one in turn if one is not None]
    return in_turn[:count]


def _question(
    asked: Asked, answers: dict[str, dict[Key, Answer]], values: Sequence[Concept]
) -> GalleryQuestion:
    return GalleryQuestion(
        language=asked.language,
        question=asked.question,
        options=list(asked.options),
        gold=asked.gold,
        answers=[
            GalleryAnswer(model=name, answer=said, verdict=verdict(asked, said, values))
            for name, of_model in answers.items()
            if (row := of_model.get(asked.key)) is not None and (said := row["answer"]) is not None
        ],
    )


def verdict(asked: Asked, answer: str, values: Sequence[Concept]) -> Verdict:
    """How an answer is judged; the same rules as for the scores."""
    if asked.benchmark == "mmmb":
        letter = choice(answer, asked.options).letter
        if letter is None:
            return "unresolved"
        return "right" if letter == asked.gold else "wrong"
    found = open_answer(answer, asked.concept, values)
    if not found.resolved:
        return "unresolved"
    if not found.right:
        return "wrong"
    return "right" if found.languages == {asked.language} else "other_language"
