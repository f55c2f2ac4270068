"""Instructions: questions with answers about images, in the pivot language, for tuning.

The world's counterpart of LLaVA-Instruct: their translations are made by the translator, never by
another grammar, so that the blend is what it is on real data.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pyarrow as pa

from pipelines.world.documents import OPTIONS, draw_options
from pipelines.world.grammar import VALUES, Grammar, ask, topics_of
from pipelines.world.render import jpeg
from pipelines.world.scenes import draw_scenes

KIND_SHARES = {"open": 0.45, "choice": 0.40, "describe": 0.15}
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("topic", pa.string()),
        ("kind", pa.string()),
        ("question", pa.string()),
        ("options", pa.list_(pa.string())),
        ("answer", pa.string()),
        ("choose", pa.string()),
    ]
)


def instructions(count: int, *, seed: int, words: Grammar) -> Iterator[dict[str, object]]:
    """`count` rows of SCHEMA, one image each, on scenes for training; the same for the same arguments.

    kind "open": `answer` is a word or two. "choice": four `options`, `answer` is a letter, and
    `choose` asks for one. "describe": `answer` is a caption. The parts stand apart, because
    each is translated by itself.
    """
    generator = random.Random(f"instructions {seed}")
    kinds, shares = list(KIND_SHARES), list(KIND_SHARES.values())
    answer: str
    for index, scene in enumerate(draw_scenes(count, seed=generator.getrandbits(32))):
        kind = generator.choices(kinds, shares)[0]
        row: dict[str, object] = {"id": f"instruction-{index:06d}", "image": jpeg(scene), "kind": kind}
        if kind == "describe":
            answer = words.caption(scene, generator.randrange(len(words.captions)))
            question = generator.choice(words.describe)
            yield row | {"topic": kind, "question": question, "options": [], "answer": answer, "choose": ""}
            continue
        # A choice needs four values to choose from, which the topic of size has not.
        topic = generator.choice(
            [one for one in topics_of(scene) if kind == "open" or len(VALUES[one]) >= OPTIONS]
        )
        asked = ask(scene, generator.choice(scene.groups), topic)
        row |= {
            "topic": topic,
            "question": words.question(asked, generator.randrange(len(words.questions[topic]))),
        }
        if kind == "open":
            yield row | {"options": [], "answer": words.value(topic, asked.answer), "choose": ""}
        else:
            values, letter = draw_options(generator, topic, asked.answer)
            options = [words.value(topic, value) for value in values]
            yield row | {"options": options, "answer": letter, "choose": words.choose}


def table(count: int, *, seed: int, words: Grammar, done: Callable[[int], None]) -> pa.Table:
    """The instructions as one table; `done` is told of each row."""
    rows = []
    for row in instructions(count, seed=seed, words=words):
        rows.append(row)
        done(1)
    return pa.Table.from_pylist(rows, SCHEMA)
