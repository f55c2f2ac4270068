"""Texts that teach a small language model both languages, without any image.

A document is a described scene and a conversation about it. The description stands where a
picture's tokens will stand later, and its language is drawn apart from that of each question:
so the model learns to answer in the language of the question, whatever the description is in.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypedDict

from pipelines.world.grammar import LETTERS, VALUES, Grammar, Topic, ask, grammar, topics_of
from pipelines.world.scenes import Scene, draw_scene

OPTIONS = 4
KIND_WEIGHTS = {"describe": 2, "open": 4, "choice": 3}


class Turn(TypedDict):
    """One question and its answer."""

    language: str
    kind: str
    question: str
    answer: str


class Document(TypedDict):
    """A conversation about a described scene."""

    context_language: str
    context: str
    turns: list[Turn]


def draw_turn(generator: random.Random, scene: Scene, words: Grammar, kind: str) -> Turn:
    """A random turn of one kind about the scene, in the language of `words`."""
    if kind == "describe":
        question = generator.choice(words.describe)
        answer = words.caption(scene, generator.randrange(len(words.captions)))
        return Turn(language=words.language, kind=kind, question=question, answer=answer)
    # A choice needs four values to choose from, which the topic of size has not.
    topics = [topic for topic in topics_of(scene) if kind == "open" or len(VALUES[topic]) >= OPTIONS]
    topic = generator.choice(topics)
    asked = ask(scene, generator.choice(scene.groups), topic)
    question = words.question(asked, generator.randrange(8))
    if kind == "open":
        return Turn(
            language=words.language, kind=kind, question=question, answer=words.value(topic, asked.answer)
        )
    options, _ = draw_options(generator, topic, asked.answer)
    question = words.choice(question, [words.value(topic, option) for option in options])
    # The option itself rather than its letter: one step of reasoning less, which a small model wants.
    return Turn(
        language=words.language, kind=kind, question=question, answer=words.value(topic, asked.answer)
    )


def draw_options(generator: random.Random, topic: Topic, answer: str) -> tuple[list[str], str]:
    """Four values in random order, the right one among them, and its letter."""
    wrong = [value for value in VALUES[topic] if value != answer]
    options = [*generator.sample(wrong, OPTIONS - 1), answer]
    generator.shuffle(options)
    return options, LETTERS[options.index(answer)]


def documents(count: int, *, seed: int, languages: Sequence[str], turns: int = 3) -> Iterator[Document]:
    """`count` documents on scenes that are not held out; the same for the same seed."""
    generator = random.Random(f"documents {seed}")
    grammars = [grammar(language) for language in languages]
    kinds, weights = list(KIND_WEIGHTS), list(KIND_WEIGHTS.values())
    for _ in range(count):
        scene = draw_scene(generator, held_out=False)
        context = generator.choice(grammars)
        drawn = generator.choices(kinds, weights, k=turns)
        yield Document(
            context_language=context.language,
            context=context.caption(scene, generator.randrange(len(context.captions))),
            turns=[draw_turn(generator, scene, generator.choice(grammars), kind) for kind in drawn],
        )
