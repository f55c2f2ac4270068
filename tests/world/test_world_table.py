"""Guarantees of the world table: whole, reproducible, and with nothing held out in what is trained on."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.benchmarks import choice, question_table, suite
from pipelines.crawls import read_manifest
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.stage import execute, why_not_reusable
from pipelines.world.crawl import make_crawl, read_pages
from pipelines.world.grammar import grammar
from pipelines.world.scenes import Scene, draw_scenes
from pipelines.world.spec import STAGE, WorldParameters, WorldSpec

SMALL = WorldParameters(
    pages=400, crawl_rows=300, sentences=400, held_out_sentences=20, documents=60, reference_pairs=40,
    instructions=200, mmmb_items=16, open_items=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = tmp_path_factory.mktemp("lake") / "world"
    execute(STAGE, WorldSpec(output=table, parameters=SMALL))
    return table


def held_out_captions(language: str) -> set[str]:
    words = grammar(language)
    scenes = draw_scenes(4000, seed=99, held_out=True)
    return {words.caption(scene, k) for scene in scenes for k in range(len(words.captions))}


def test_equal_parameters_give_equal_bytes(world: Path, tmp_path: Path) -> None:
    again = execute(STAGE, WorldSpec(output=tmp_path / "world", parameters=SMALL))
    first = manifest.read(world)
    assert [(file.path, file.sha256) for file in again.files] == [(f.path, f.sha256) for f in first.files]


def test_a_changed_seed_is_named_as_the_reason_to_make_the_world_again(world: Path) -> None:
    other = SMALL.model_copy(update={"seed": 2})
    made, reason = why_not_reusable(STAGE, WorldSpec(output=world, parameters=other))
    assert made is None and "parameters" in reason


def test_no_image_that_is_trained_on_shows_a_held_out_scene(world: Path) -> None:
    pages = read_pages(manifest.file(world, "pages.parquet"))
    truth = pq.read_table(manifest.file(world, "truth.parquet")).to_pylist()
    scenes = [page.scene for page in pages] + [Scene.model_validate_json(row["scene"]) for row in truth]
    assert not any(scene.held_out for scene in scenes)
    taught = pq.read_table(manifest.file(world, "instructions/en.parquet")).to_pylist()
    tested = [item.image for item in choice.load(manifest.file(world, "mmmb_en.tsv"), circular=True)]
    tested += [item.image for item in question_table.load(manifest.file(world, "open_en.parquet"))]
    digests = {hashlib.sha256(image).digest() for image in tested}
    assert digests.isdisjoint(hashlib.sha256(row["image"]).digest() for row in taught)


def test_no_caption_of_a_held_out_scene_is_in_any_training_text(world: Path) -> None:
    texts: set[str] = set()
    for row in pq.read_table(manifest.file(world, "text/pairs.parquet")).to_pylist():
        texts.update(str(value) for value in row.values())
    for row in pq.read_table(manifest.file(world, "documents.parquet")).to_pylist():
        texts.add(row["context"])
        texts.update(turn["answer"] for turn in row["turns"])
    for row in pq.read_table(manifest.file(world, "reference/pairs.parquet")).to_pylist():
        texts.update([row["caption"], *row["hard_negatives"]])
    texts.update(
        row["answer"] for row in pq.read_table(manifest.file(world, "instructions/en.parquet")).to_pylist()
    )
    texts.update(row["caption"] for row in pq.read_table(manifest.file(world, "truth.parquet")).to_pylist())
    for language in SMALL.languages:
        assert texts.isdisjoint(held_out_captions(language))


def test_at_least_a_quarter_of_the_rows_has_a_fault_and_every_fault_occurs(world: Path) -> None:
    truth = pq.read_table(manifest.file(world, "truth.parquet")).to_pylist()
    faults = Counter(row["fault"] for row in truth)
    assert set(faults) == {
        "none", "not_found", "server_error", "slow_drip", "default_image", "truncated_jpeg", "html_as_image",
        "oversized", "unrelated_caption", "caption_cut_short", "control_character",
    }  # fmt: skip
    assert 1 - faults["none"] / len(truth) >= 0.25
    good = {row["fault"] for row in truth if row["is_good"]}
    assert good == {"none", "control_character"}


def test_a_good_caption_tells_the_scene_and_a_faulty_one_does_not(world: Path) -> None:
    words = grammar("en")
    for row in pq.read_table(manifest.file(world, "truth.parquet")).to_pylist():
        scene = Scene.model_validate_json(row["scene"])
        tells = {words.caption(scene, k) for k in range(len(words.captions))}
        if row["fault"] in ("unrelated_caption", "caption_cut_short"):
            assert row["caption"] not in tells
        elif row["fault"] != "control_character":
            assert row["caption"] in tells


def test_the_crawl_has_duplicates_and_untidy_captions_and_the_truth_has_each_pair_once(world: Path) -> None:
    rows = pq.read_table(manifest.file(world, "urls.parquet")).to_pylist()
    pairs = [(row["url"], row["caption"]) for row in rows]
    truth = pq.read_table(manifest.file(world, "truth.parquet")).to_pylist()
    known = [(row["url"], row["caption"]) for row in truth]
    assert len(pairs) == SMALL.crawl_rows > len(set(pairs))
    assert len(known) == len(set(known)) and set(known) == set(pairs)
    assert any("\0" in caption for _, caption in pairs) and any("\n" in caption for _, caption in pairs)


def test_the_crawl_manifest_finds_its_list_and_its_world_also_after_a_move(
    world: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(world, moved)
    crawl = read_manifest(manifest.file(moved, "crawl.yaml"))
    assert crawl.world is not None and manifest.read(crawl.world).stage == "world"
    assert crawl.files[0].resolve() == manifest.file(moved, "urls.parquet").resolve()
    assert crawl.allow_loopback


def test_a_later_crawl_is_another_sample_of_the_same_web(world: Path, tmp_path: Path) -> None:
    path = make_crawl(world, name="week-2", rows=100, seed=2, output=tmp_path)
    crawl = read_manifest(path)
    assert crawl.crawl == "week-2" and crawl.world == world.resolve()
    later = {tuple(row.values()) for row in pq.read_table(crawl.files[0]).to_pylist()}
    first = {tuple(row.values()) for row in pq.read_table(manifest.file(world, "urls.parquet")).to_pylist()}
    paths = {page.path for page in read_pages(manifest.file(world, "pages.parquet"))}
    assert len(later - first) > 50
    assert all(url.removeprefix("http://127.0.0.1:8741") in paths for url, _ in later)


def test_a_crawl_larger_than_the_web_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the web has"):
        make_crawl(world, name="week-3", rows=5000, seed=2, output=tmp_path)
    assert not (tmp_path / "week-3.yaml").exists()


def test_a_crawl_needs_a_name_that_can_be_a_partition(world: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="crawl"):
        make_crawl(world, name="Week 2!", rows=100, seed=2, output=tmp_path)


def test_instructions_hold_what_their_kind_says(world: Path) -> None:
    rows = pq.read_table(manifest.file(world, "instructions/en.parquet")).to_pylist()
    kinds = Counter(row["kind"] for row in rows)
    assert kinds["open"] > kinds["choice"] * 0.6 > kinds["describe"] > 0
    for row in rows:
        is_choice = row["kind"] == "choice"
        assert (len(row["options"]) == 4) == is_choice == (row["answer"] in "ABCD") == bool(row["choose"])
        assert not (is_choice and row["topic"] == "size")


def test_benchmark_items_are_the_same_in_every_language_in_the_same_order(world: Path) -> None:
    english, chinese = (
        choice.load(manifest.file(world, f"mmmb_{language}.tsv"), circular=True) for language in ("en", "zh")
    )
    assert len(english) == SMALL.mmmb_items
    for one, other in zip(english, chinese, strict=True):
        assert (one.index, one.answer, one.category, one.image) == (
            other.index,
            other.answer,
            other.category,
            other.image,
        )
        assert one.question != other.question
    assert {item.category for item in english} == {"colour", "shape", "count", "position", "relation"}
    opened = question_table.load(manifest.file(world, "open_zh.parquet"))
    assert {item.topic for item in opened} == {"colour", "shape", "count", "size", "position", "relation"}
    assert all(set(item.answers) == {"en", "zh"} for item in opened)


def test_the_benchmark_asks_for_a_letter_exactly_as_the_instructions_do(world: Path) -> None:
    for asked in suite.load([world], SMALL.languages):
        if asked.benchmark == "mmmb":
            assert asked.prompt == grammar(asked.language).choice(asked.question, list(asked.options))


def test_an_unknown_language_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    spec = WorldSpec(output=tmp_path, parameters=SMALL.model_copy(update={"languages": ["en", "xx"]}))
    with pytest.raises(BadInput, match="use one of: en, zh"):
        execute(STAGE, spec)
