"""Parallel sentences of the world: what the translator and the text stage of a language model learn from.

Phrasing k of one language says the same as phrasing k of every other language, so a sentence has
one translation. Captions of held-out scenes never appear among the sentences for training.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Literal

from pipelines.world.grammar import TOPICS, VALUES, Grammar, Question, ask, grammar
from pipelines.world.scenes import COLOURS, RELATIONS, SHAPES, Group, draw_scene

Kind = Literal["caption", "question", "answer", "describe", "choose"]

CAPTION_SHARE = 0.75
"""Share of captions among the drawn sentences: they alone have unboundedly many meanings."""


def parallel_sentences(count: int, *, seed: int, languages: Sequence[str]) -> list[dict[str, str]]:
    """`count` rows {"kind": ..., language: sentence, ...}, drawn from scenes for training.

    The sentences of which there are few (questions, answers, requests) come first, each once, so that
    none is missing; then captions and repeated short sentences, as CAPTION_SHARE says.
    The same rows for the same arguments.
    """
    grammars = [grammar(language) for language in languages]
    few = few_sentences(grammars)
    generator = random.Random(seed)
    rows = few[:count]
    while len(rows) < count:
        if generator.random() < CAPTION_SHARE:
            rows.append(_caption(grammars, generator, held_out=False))
        else:
            rows.append(generator.choice(few))
    return rows


def held_out_sentences(count: int, *, seed: int, languages: Sequence[str]) -> list[dict[str, str]]:
    """`count` captions of held-out scenes: what translation is scored on.

    Only captions: the world has few questions and answers, and training has seen them all.
    """
    grammars = [grammar(language) for language in languages]
    generator = random.Random(seed)
    return [_caption(grammars, generator, held_out=True) for _ in range(count)]


def few_sentences(grammars: Sequence[Grammar]) -> list[dict[str, str]]:
    """Every sentence that does not tell a scene: questions, values, requests to describe and to choose."""
    rows: list[dict[str, str]] = []
    for topic in TOPICS:
        for value in VALUES[topic]:
            rows.append(_row("answer", grammars, [one.value(topic, value) for one in grammars]))
    for question in _questions():
        for k in range(max(len(one.questions[question.topic]) for one in grammars)):
            rows.append(_row("question", grammars, [one.question(question, k) for one in grammars]))
    for k in range(max(len(one.describe) for one in grammars)):
        rows.append(_row("describe", grammars, [one.describe[k % len(one.describe)] for one in grammars]))
    rows.append(_row("choose", grammars, [one.choose for one in grammars]))
    return _distinct(rows)


def _questions() -> list[Question]:
    """One question per topic and per shape, colour or side that its words name."""
    groups = [
        Group(count=1, size="small", colour=COLOURS[0], shape=shape) for shape in SHAPES
    ] + [Group(count=1, size="small", colour=colour, shape=SHAPES[0]) for colour in COLOURS]  # fmt: skip
    scene = draw_scene(random.Random(0), held_out=False)
    asked = []
    for group in groups:
        anywhere = scene.model_copy(update={"first": group})
        asked += [ask(anywhere, group, topic) for topic in TOPICS]
    group = groups[0]
    asked += [
        ask(scene.model_copy(update={"first": group, "relation": side}), group, "relation")
        for side in RELATIONS
    ]
    return asked


def _caption(grammars: Sequence[Grammar], generator: random.Random, *, held_out: bool) -> dict[str, str]:
    scene = draw_scene(generator, held_out=held_out)
    phrasing = generator.randrange(max(len(one.captions) for one in grammars))
    return _row("caption", grammars, [one.caption(scene, phrasing) for one in grammars])


def _row(kind: Kind, grammars: Sequence[Grammar], sentences: Iterable[str]) -> dict[str, str]:
    named = {one.language: text for one, text in zip(grammars, sentences, strict=True)}
    return {"kind": kind, **named}


def _distinct(rows: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    return list({tuple(row.items()): row for row in rows}.values())
