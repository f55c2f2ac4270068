"""Parallel sentences: what is for training and what is held out never meet."""

from __future__ import annotations

import numpy as np

from pipelines.world.grammar import TOPICS, ask, grammar, topics_of
from pipelines.world.render import draw
from pipelines.world.scenes import draw_scenes
from pipelines.world.text import few_sentences, held_out_sentences, parallel_sentences

LANGUAGES = ["en", "zh"]


def test_equal_arguments_give_equal_rows_and_another_seed_others() -> None:
    rows = parallel_sentences(300, seed=1, languages=LANGUAGES)
    assert rows == parallel_sentences(300, seed=1, languages=LANGUAGES)
    assert rows != parallel_sentences(300, seed=2, languages=LANGUAGES)
    assert len(rows) == 300


def test_no_held_out_caption_is_among_the_training_sentences() -> None:
    training = {
        row[language]
        for row in parallel_sentences(6000, seed=1, languages=LANGUAGES)
        for language in LANGUAGES
    }
    held_out = {
        row[language]
        for row in held_out_sentences(600, seed=2, languages=LANGUAGES)
        for language in LANGUAGES
    }
    assert not training & held_out


def test_every_short_sentence_is_given() -> None:
    rows = parallel_sentences(100, seed=1, languages=LANGUAGES)
    for short in few_sentences([grammar(language) for language in LANGUAGES]):
        assert short in rows


def test_a_sentence_has_one_translation() -> None:
    translations: dict[str, set[str]] = {}
    for row in parallel_sentences(6000, seed=1, languages=LANGUAGES):
        translations.setdefault(row["en"], set()).add(row["zh"])
    assert {len(found) for found in translations.values()} == {1}


def test_every_question_of_a_scene_is_among_the_short_sentences() -> None:
    short = {row["en"] for row in few_sentences([grammar("en")])}
    words = grammar("en")
    for scene in draw_scenes(40, seed=5, held_out=True):
        for group in scene.groups:
            for topic in TOPICS:
                asked = ask(scene, group, topic)
                assert words.question(asked, 1) in short
                assert words.value(topic, asked.answer) in short


def test_the_shape_that_a_relation_question_asks_for_stands_on_that_side() -> None:
    words = grammar("en")
    for scene in draw_scenes(200, seed=6):
        if scene.second is None:
            assert "relation" not in topics_of(scene)
            continue
        assert "relation" in topics_of(scene)
        for group in scene.groups:
            asked = ask(scene, group, "relation")
            image = np.asarray(
                draw(scene.model_copy(update={"first": group, "second": None, "relation": asked.side}))
            )
            background = image[0, 0].astype(int)
            rows, columns = np.nonzero(np.abs(image.astype(int) - background).sum(-1) > 100)
            place = {"left": -columns, "right": columns, "above": -rows, "below": rows}[asked.side]
            middle = {"left": -1, "above": -1}.get(asked.side, 1) * image.shape[0] / 2
            assert place.mean() > middle
            assert words.relations[asked.side] in words.question(asked, 0)
            assert asked.answer == group.shape
