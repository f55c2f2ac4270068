"""Guarantees of the reference pairs."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image

from pipelines.world.grammar import grammar
from pipelines.world.reference import (
    BOILERPLATE,
    CHANGED,
    CUT,
    OTHER_SCENE,
    SCHEMA,
    change_one,
    ends_early,
    reference_pairs,
)
from pipelines.world.render import SIDE
from pipelines.world.scenes import Scene, draw_scenes

LANGUAGES = ["en", "zh"]


def differing(first: Scene, second: Scene) -> int:
    """How many things that a caption tells differ."""
    told = [
        (
            one.count == other.count,
            one.size == other.size,
            one.colour == other.colour,
            one.shape == other.shape,
        )
        for one, other in zip(first.groups, second.groups, strict=True)
    ]
    return sum(not equal for group in told for equal in group) + (first.relation != second.relation)


def test_the_pairs_are_a_function_of_the_seed() -> None:
    assert reference_pairs(20, seed=1, languages=LANGUAGES).equals(
        reference_pairs(20, seed=1, languages=LANGUAGES)
    )
    assert not reference_pairs(20, seed=1, languages=LANGUAGES).equals(
        reference_pairs(20, seed=2, languages=LANGUAGES)
    )


def test_each_pair_is_whole_in_its_language_and_none_of_its_negatives_is_its_caption() -> None:
    table = reference_pairs(60, seed=3, languages=LANGUAGES)
    assert table.schema == SCHEMA
    for index, row in enumerate(table.to_pylist()):
        words = grammar(LANGUAGES[index % 2])
        assert row["language"] == words.language
        assert row["caption"].endswith(words.sentence_end)
        assert len(row["hard_negatives"]) == CHANGED + CUT + BOILERPLATE + OTHER_SCENE
        assert row["caption"] not in row["hard_negatives"]
        assert any(text in words.boilerplate for text in row["hard_negatives"])
        with Image.open(io.BytesIO(row["image"])) as image:
            assert image.size == (SIDE, SIDE)


def test_a_changed_scene_differs_in_one_thing_is_a_possible_scene_and_is_not_held_out() -> None:
    generator = random.Random(5)
    topics = set()
    for scene in draw_scenes(400, seed=5):
        changed = change_one(scene, generator)
        assert differing(scene, changed) == 1
        assert changed.meaning != scene.meaning
        assert len({group.shape for group in changed.groups}) == len(changed.groups)
        assert not changed.held_out
        topics |= {
            topic
            for topic in ("colour", "shape", "count", "size")
            for one, other in zip(scene.groups, changed.groups, strict=True)
            if getattr(one, topic) != getattr(other, topic)
        }
        topics |= {"relation"} if scene.relation != changed.relation else set()
    assert topics == {"colour", "shape", "count", "size", "relation"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_cut_caption_is_a_beginning_without_the_final_mark(language: str) -> None:
    generator = random.Random(6)
    words = grammar(language)
    for scene in draw_scenes(200, seed=6):
        caption = words.caption(scene, generator.randrange(10))
        cut = ends_early(caption, generator)
        assert cut
        assert caption.startswith(cut)
        assert not cut.endswith(words.sentence_end)
