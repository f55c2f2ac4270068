"""Held-out questions about held-out scenes: the world's MMMB and its open questions.

The same items in the same order in every language, so that languages can be compared item by item.
Two items share an image, as in MMMB, where rows of one image are not independent.
"""

from __future__ import annotations

import base64
import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.world.documents import OPTIONS, draw_options
from pipelines.world.grammar import LETTERS, VALUES, Grammar, Question, ask, grammar, topics_of
from pipelines.world.render import jpeg
from pipelines.world.scenes import Scene, draw_scenes

ITEMS_PER_IMAGE = 2
MMMB_COLUMNS = ("index", "image", "question", "hint", *LETTERS, "answer", "category", "split")
SPLIT = "test"


@dataclass(frozen=True)
class Item:
    """A question about a scene, before it is put into a language."""

    index: int
    scene: Scene
    asked: Question
    phrasing: int
    options: list[str]
    """Values in the order of the letters; none for an open question."""


def draw_items(count: int, *, seed: int, choice: bool) -> list[Item]:
    """`count` items on held-out scenes, topics in turn; with four options each, or open."""
    generator = random.Random(f"benchmark {seed} {'choice' if choice else 'open'}")
    images = -(-count // ITEMS_PER_IMAGE)
    scenes = draw_scenes(images, seed=generator.getrandbits(32), held_out=True)
    items = []
    for index in range(count):
        scene = scenes[index // ITEMS_PER_IMAGE]
        # Items of one image ask about different groups, or they could ask the same question twice.
        group = scene.groups[index % len(scene.groups)]
        topics = [topic for topic in topics_of(scene) if not choice or len(VALUES[topic]) >= OPTIONS]
        topic = topics[index % len(topics)]
        asked = ask(scene, group, topic)
        options = draw_options(generator, topic, asked.answer)[0] if choice else []
        items.append(Item(index, scene, asked, generator.randrange(8), options))
    return items


def write_mmmb(items: Sequence[Item], language: str, file: Path) -> None:
    """The items in MMMB's published layout: a TSV without quoting.

    An image stands in the row of its first item; later rows hold that row's index in its place.
    """
    words = grammar(language)
    first_index: dict[Scene, int] = {}
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(
            stream, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n"
        )
        writer.writerow(MMMB_COLUMNS)
        for item in items:
            if item.scene in first_index:
                image = str(first_index[item.scene])
            else:
                image = base64.b64encode(jpeg(item.scene)).decode()
                first_index[item.scene] = item.index
            options = [words.value(item.asked.topic, value) for value in item.options]
            letter = LETTERS[item.options.index(item.asked.answer)]
            question = words.question(item.asked, item.phrasing)
            writer.writerow([item.index, image, question, "", *options, letter, item.asked.topic, SPLIT])


def write_open_questions(items: Sequence[Item], language: str, languages: Sequence[str], file: Path) -> None:
    """index, image (JPEG bytes), question, topic, and `answers`: the right answer in every language.

    All languages, so that a right answer in the wrong language can be told from a wrong one.
    """
    words = grammar(language)
    grammars: list[Grammar] = [grammar(one) for one in languages]
    rows = [
        {
            "index": str(item.index),
            "image": jpeg(item.scene),
            "question": words.question(item.asked, item.phrasing),
            "topic": item.asked.topic,
            "answers": {one.language: one.value(item.asked.topic, item.asked.answer) for one in grammars},
        }
        for item in items
    ]
    schema = pa.schema(
        [
            ("index", pa.string()),
            ("image", pa.binary()),
            ("question", pa.string()),
            ("topic", pa.string()),
            ("answers", pa.struct([(one, pa.string()) for one in languages])),
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), file)
