"""A corpus of conversations goes from its manifest to an instruction mix through the jobs that a person presses."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.partitions import register_crawl
from jobs.definitions import definitions
from pipelines.lake import manifest
from pipelines.lake.shards import ShardReader
from pipelines.progress import QUIET_VARIABLE
from pipelines.recipe import Recipe, read_recipe
from pipelines.world.grammar import grammar
from pipelines.world.text import few_sentences
from tests import conversation_corpus, tables
from tests.conversation_corpus import entry
from tests.dagster_home import TINY_RECIPE
from tests.small_translator import short_sentence_translator

WORDS = {row["en"]: row["zh"] for row in few_sentences([grammar("en"), grammar("zh")])}
QUESTIONS = [text for text in WORDS if text.endswith("?")]
IMAGES = {f"{at}.jpg": row["image"] for at, row in enumerate(tables.world_rows(3))}
TALKS = [
    entry("choice", "0.jpg", f"{QUESTIONS[0]}\nA. red\nB. blue", "B", QUESTIONS[1], "red"),
    entry("text", None, QUESTIONS[2], "blue"),
    # What is left out here is translated by nobody: the filter drops it before.
    entry("loop", "1.jpg", QUESTIONS[3], "green " * 200),
    entry("untranslatable", "2.jpg", QUESTIONS[4], "99 red balloons, 7 of them torn in half."),
]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The tiny recipe without its world, and with a translator that knows the corpus's words."""
    monkeypatch.setenv(QUIET_VARIABLE, "1")
    workspace = tmp_path / "data"
    shutil.copytree(short_sentence_translator(), workspace / "foundations" / "translator")
    tiny = read_recipe(TINY_RECIPE)
    rules = tiny.filter.conversations.model_copy(update={"most_repeated": 0.5})
    return tiny.model_copy(
        update={
            "workspace": workspace,
            "world": None,
            "filter": tiny.filter.model_copy(update={"conversations": rules}),
        }
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def test_conversations_are_filtered_translated_and_blended(
    recipe: Recipe, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    crawl = conversation_corpus.write(tmp_path / "corpus", TALKS, IMAGES)
    register_crawl(crawl, recipe.workspace, instance)
    defs = definitions(recipe)

    done = defs.resolve_job_def("instruction_mix").execute_in_process(instance=instance, raise_on_error=False)
    assert not done.success  # no data at all

    job = defs.resolve_job_def("ingest_translated_conversations")
    assert job.execute_in_process(instance=instance, partition_key="talks").success
    made = recipe.workspace / "crawls" / "talks"
    filtered = manifest.read(made / "filtered_pairs")
    assert filtered.ledger is not None and filtered.ledger.dropped == {"conversation_repetitive": 1}
    translated = manifest.read(made / "translated_conversations")
    assert translated.ledger is not None
    assert (translated.ledger.rows_in, translated.ledger.kept) == (3, 2)

    job = defs.resolve_job_def("instruction_mix")
    assert job.execute_in_process(instance=instance).success
    english = ShardReader(recipe.workspace / "instruction_mix" / "english_only")
    assert english.languages.to_pylist() == [["en"]] * 3
    blend = ShardReader(recipe.workspace / "instruction_mix" / "blend")
    samples = [(blend.images(place), blend.document(place)["turns"]) for place in range(len(blend))]
    chinese = [(images, turns) for images, turns in samples if turns[0]["language"] == "zh"]
    assert len(chinese) == len(samples) - len(chinese) == 2
    (with_image, choice), (without, text) = chinese
    assert (with_image, without) == (1, 0)
    question, first, second = choice[0]["question"].split("\n")
    assert (question, first[:3], second[:3]) == (WORDS[QUESTIONS[0]], "A. ", "B. ")
    assert choice[0]["answer"] == "B"
    assert choice[1]["question"] == WORDS[QUESTIONS[1]]
    assert text[0]["question"] == WORDS[QUESTIONS[2]]

    # A crawl that was taken in and not filtered is no part of a mix unseen.
    shutil.rmtree(made / "filtered_pairs")
    again = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not again.success
    (failure, *_) = [event for event in again.all_events if event.is_step_failure]
    assert "ingest_conversations" in str(failure.step_failure_data.error or failure.step_failure_data)


def test_a_stage_for_pairs_says_what_conversations_are_for(
    recipe: Recipe, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    crawl = conversation_corpus.write(tmp_path / "corpus", TALKS, IMAGES, crawl="talks", language="tr")
    register_crawl(crawl, recipe.workspace, instance)
    conversation_corpus.taken_in(crawl, recipe.workspace / "crawls" / "talks" / "raw_pairs")
    defs = definitions(recipe)
    for name, words in (("clip_scores", "ingest_conversations"), ("translated_conversations", "it is in tr")):
        job = defs.resolve_job_def(name)
        done = job.execute_in_process(instance=instance, partition_key="talks", raise_on_error=False)
        (failure, *_) = [event for event in done.all_events if event.is_step_failure]
        assert words in str(failure.step_failure_data), name
