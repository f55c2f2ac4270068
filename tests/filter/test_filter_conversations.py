"""Conversations are curated like pairs, but for what needs a caption or a score; those about no image stay."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.conversations.table import conversations, entries
from pipelines.download.readers.turns import dump
from pipelines.errors import BadInput
from pipelines.facts.spec import STAGE as FACTS
from pipelines.facts.spec import Decontamination, FactsParameters, FactsSpec, NearDuplicates
from pipelines.filter.spec import STAGE, FilterParameters, FilterSpec
from pipelines.lake import manifest
from pipelines.lake.identity import pair_uid
from pipelines.progress import QUIET_VARIABLE
from pipelines.stage import execute
from pipelines.world import benchmark
from pipelines.world.grammar import grammar
from pipelines.world.render import jpeg
from tests import conversation_corpus, tables
from tests.conversation_corpus import entry

PICTURES = {f"{at}.jpg": row["image"] for at, row in enumerate(tables.world_rows(6))}
ENGLISH = "Please look at this picture and tell me what you can see in it."
TALKS = {
    "plain": entry("plain", "0.jpg", ENGLISH, "There is a red circle above a green square, and nothing else."),
    "again": entry("again", "0.jpg", "And what is not there?", "There is no blue triangle in this picture."),
    "text": entry("text", None, "Write me a short poem about roses and violets.", "Roses are red, violets are blue."),
    "german": entry("german", "1.jpg", "Was ist auf diesem Bild zu sehen?", "Auf dem Bild ist ein rotes Dreieck zu sehen."),
    "loop": entry("loop", "2.jpg", "What is this here?", "a cat " * 60),
    "short": entry("short", "3.jpg", "What?", "A cat."),
}  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(QUIET_VARIABLE, "1")
        folder = tmp_path_factory.mktemp("talks")
        crawl = conversation_corpus.write(folder / "corpus", list(TALKS.values()), PICTURES)
        raw = conversation_corpus.taken_in(crawl, folder / "raw", rows_per_shard=4)
        execute(FACTS, FactsSpec(output=folder / "facts", raw_pairs=raw, parameters=parameters()))
    return folder


def parameters(**changes: Any) -> FactsParameters:
    # Switched on for pairs, and found of no conversation: no score tells which of several is best.
    return FactsParameters(near_duplicates=NearDuplicates(hash_bits=3), **changes)


def uid(name: str) -> str:
    talk = TALKS[name]
    said = [message["value"].removeprefix("<image>\n").strip() for message in talk["conversations"]]
    address = f"http://images.example/{talk['image']}" if "image" in talk else ""
    return pair_uid(address, dump(list(zip(said[::2], said[1::2], strict=True))).decode())


def filtered(lake: Path, output: Path, facts: Path | None = None, **changes: Any) -> dict[str, str | None]:
    """Name of each conversation -> why it was dropped; none: kept."""
    lists = {name: changes.pop(name) for name in list(changes) if name.startswith("blocked_") and name != "blocked_hash_bits"}  # fmt: skip
    scores = {"nsfw_scores": changes.pop("nsfw_scores")} if "nsfw_scores" in changes else {}
    spec = FilterSpec(
        output=output, raw_pairs=lake / "raw", pair_facts=facts or lake / "facts",
        parameters=FilterParameters(**changes), **lists, **scores,
    )  # fmt: skip
    ledger = execute(STAGE, spec).ledger
    assert ledger is not None and ledger.rows_in == len(TALKS)
    kept = pq.read_table(manifest.file(output, "kept.parquet"))["uid"].to_pylist()
    dropped = pq.read_table(manifest.file(output, "dropped.parquet")).to_pylist()
    assert ledger.kept == len(kept) and ledger.kept + sum(ledger.dropped.values()) == len(TALKS)
    found = dict.fromkeys(kept) | {row["uid"]: row["reason"] for row in dropped}
    return {name: found[uid(name)] for name in TALKS}


def test_without_rules_every_conversation_is_kept_also_one_about_no_image(lake: Path, tmp_path: Path) -> None:
    # The threshold, the limit of pairs per image and the rules of captions are those of pairs.
    found = filtered(
        lake, tmp_path / "out", threshold=0.9, most_urls_per_image=1,
        captions={"most_characters": 5, "drop_cut": True, "languages": ["zh"]},
    )  # fmt: skip
    assert set(found.values()) == {None}
    metrics = manifest.read(tmp_path / "out").metrics
    assert (metrics["records"], metrics["without_image"]) == ("conversations", 1)
    assert "threshold" not in metrics and not manifest.files(tmp_path / "out", "histogram.png")
    assert manifest.read(lake / "facts").metrics["with_near_duplicates_by_hash"] == 0


def test_rules_of_conversations_look_at_all_that_is_said(lake: Path, tmp_path: Path) -> None:
    rules = {"languages": ["en"], "fewest_characters": 20, "most_repeated": 0.5}
    assert filtered(lake, tmp_path / "out", conversations=rules) == {
        "plain": None, "again": None, "text": None, "german": "conversation_language",
        "loop": "conversation_repetitive", "short": "conversation_too_short",
    }  # fmt: skip
    found = filtered(lake, tmp_path / "long", conversations={"most_characters": 200})
    assert {name for name, reason in found.items() if reason} == {"loop"}


def test_lists_name_images_and_domains_and_nothing_holds_for_what_has_no_image(
    lake: Path, tmp_path: Path
) -> None:
    (tmp_path / "images.txt").write_text(hashlib.sha256(PICTURES["0.jpg"]).hexdigest() + "\n")
    found = filtered(lake, tmp_path / "sha256", blocked_images=[tmp_path / "images.txt"])
    assert {name for name, reason in found.items() if reason} == {"plain", "again"}
    hashes = pq.read_table(manifest.file(lake / "facts", "hashes-00000.parquet")).to_pylist()
    of_loop = {row["uid"]: row["perceptual_hash"] for row in hashes}[uid("german")]
    # All zeros besides: what has no hash must not be taken for a hash of zero.
    (tmp_path / "hashes.txt").write_text(f"{of_loop:016x}\n{0:016x}\n")
    found = filtered(lake, tmp_path / "phash", blocked_images=[tmp_path / "hashes.txt"], blocked_hash_bits=0)
    assert {name: reason for name, reason in found.items() if reason} == {"german": "blocked_image"}
    (tmp_path / "domains.txt").write_text("images.example\n")
    found = filtered(lake, tmp_path / "domain", blocked_domains=[tmp_path / "domains.txt"])
    assert {name for name, reason in found.items() if reason is None} == {"text"}


def test_what_has_no_image_needs_no_nsfw_score(lake: Path, tmp_path: Path) -> None:
    scores = {"url": ["http://images.example/0.jpg"], "nsfw": [0.1]}
    pq.write_table(pa.table(scores), tmp_path / "nsfw.parquet")
    found = filtered(
        lake, tmp_path / "out", nsfw_scores=[tmp_path / "nsfw.parquet"], most_nsfw=0.5,
        without_nsfw_score="drop",
    )  # fmt: skip
    assert {name for name, reason in found.items() if reason is None} == {"plain", "again", "text"}


def test_what_a_benchmark_shows_or_asks_is_not_trained_on(tmp_path: Path) -> None:
    items = benchmark.draw_items(2, seed=1, choice=True)

    def write(folder: Path) -> None:
        benchmark.write_mmmb(items, "en", folder / "mmmb_en.tsv")

    asked = [grammar("en").question(item.asked, item.phrasing) for item in items]
    talks = [
        entry("shown", "shown.jpg", "What colour is it?", "It is red."),
        entry("asked", "0.jpg", "Hello.", f"Let us see. {asked[1]} I cannot tell."),
        entry("neither", "1.jpg", "Hello there.", "Nothing to see here."),
    ]
    images = {**PICTURES, "shown.jpg": jpeg(items[0].scene)}
    raw = conversation_corpus.taken_in(
        conversation_corpus.write(tmp_path / "corpus", talks, images), tmp_path / "raw"
    )
    rules = FactsParameters(decontamination=Decontamination(hash_bits=0, words=4))
    bench = {"mmmb": tables.publish(tmp_path / "benchmark", write)}
    execute(FACTS, FactsSpec(output=tmp_path / "facts", raw_pairs=raw, benchmarks=bench, parameters=rules))
    made = execute(STAGE, FilterSpec(output=tmp_path / "out", raw_pairs=raw, pair_facts=tmp_path / "facts"))
    assert made.ledger is not None
    assert (made.ledger.kept, made.ledger.dropped) == (1, {"benchmark_image": 1, "benchmark_text": 1})


def test_only_what_was_kept_goes_on_to_translation_and_to_the_mix(lake: Path, tmp_path: Path) -> None:
    filtered(lake, tmp_path / "out", conversations={"languages": ["en"], "fewest_characters": 20})
    kept = {uid(name) for name in ("plain", "again", "text", "loop")}
    assert {one["id"] for one in entries(lake / "raw", tmp_path / "out")} == kept
    found = list(conversations(lake / "raw", tmp_path / "out"))
    assert {one.uid for one in found} == kept
    assert [one.uid for one in found if one.image is None] == [uid("text")]


def test_a_filter_result_of_another_version_is_refused(lake: Path, tmp_path: Path) -> None:
    other = conversation_corpus.write(tmp_path / "corpus", [TALKS["plain"]], PICTURES)
    raw = conversation_corpus.taken_in(other, tmp_path / "raw")
    filtered(lake, tmp_path / "out")
    with pytest.raises(BadInput, match="another version of this crawl"):
        list(entries(raw, tmp_path / "out"))


def test_scores_are_for_pairs_alone(lake: Path, tmp_path: Path) -> None:
    pairs = tables.raw_pairs(tmp_path / "pairs", tables.world_rows(3))
    with pytest.raises(BadInput, match="holds pairs"):
        execute(FACTS, FactsSpec(output=tmp_path / "a", raw_pairs=pairs))
    with pytest.raises(BadInput, match="holds pairs"):
        execute(STAGE, FilterSpec(output=tmp_path / "b", raw_pairs=pairs))
    with pytest.raises(BadInput, match="holds conversations"):
        execute(STAGE, FilterSpec(output=tmp_path / "c", raw_pairs=lake / "raw", clip_scores=pairs))
