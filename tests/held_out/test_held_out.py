"""Captions for the pivot gap: held out of pretraining, in every language, and the same ones each time."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.errors import BadInput
from pipelines.held_out.spec import STAGE, HeldOutParameters, HeldOutSpec
from pipelines.lake import manifest
from pipelines.lake.identity import pair_uid
from pipelines.lake.shards import ShardWriter, write_index
from pipelines.stage import execute
from pipelines.training.planning import HELD_OUT_FILE
from pipelines.training.spec import PLAN, PlanSpec
from pipelines.world.grammar import grammar
from pipelines.world.render import jpeg
from pipelines.world.scenes import draw_scenes
from pipelines.world.text import few_sentences
from tests import tables
from tests.small_translator import short_sentence_translator

PAIRS = {
    row["en"]: row["zh"] for row in few_sentences([grammar("en"), grammar("zh")]) if row["kind"] == "question"
}
NONSENSE = "free shipping on all orders over 50 dollars, no questions asked, all over the world " * 6
SAMPLES = 40


def shards(table: Path, nonsense: int = 0) -> Path:
    """Pictures with English captions alone: short sentences that the translator knows, and some that it does not."""
    texts = list(PAIRS)

    def write(folder: Path) -> None:
        with ShardWriter(folder, "shard", SAMPLES) as writer:
            for index, scene in enumerate(draw_scenes(SAMPLES, seed=3)):
                caption = f"{index} {NONSENSE}" if index < nonsense else texts[index % len(texts)]
                uid = pair_uid(f"http://127.0.0.1/{index}.jpg", caption)
                writer.add(
                    uid,
                    jpeg(scene),
                    "jpg",
                    {"uid": uid, "source": "test", "captions": {"en": caption}},
                    ["en"],
                )
        write_index(folder / "index.parquet", writer.rows)

    return tables.publish(table, write)


def spec(table: Path, output: Path, **more: object) -> HeldOutSpec:
    return HeldOutSpec(
        output=output, shards=table, translator=short_sentence_translator(), threads=1,
        parameters=HeldOutParameters.model_validate({"captions": 3, **more}),
    )  # fmt: skip


def rows(table: Path) -> list[dict[str, object]]:
    found = pq.read_table(manifest.file(table, HELD_OUT_FILE)).to_pylist()
    return [{**row, "captions": json.loads(row["captions"])} for row in found]


def test_a_few_captions_are_translated_and_their_images_kept(tmp_path: Path) -> None:
    made = execute(STAGE, spec(shards(tmp_path / "shards"), tmp_path / "held"))
    held = rows(tmp_path / "held")

    assert len(held) == 3 and all(row["image"] for row in held)
    for row in held:
        captions = row["captions"]
        assert isinstance(captions, dict) and PAIRS[captions["en"]] == captions["zh"]
    assert made.ledger is not None and made.ledger.balanced
    assert made.ledger.dropped == {"not_needed": 9}
    # At most a tenth: what is held out is missed in training.
    assert execute(STAGE, spec(tmp_path / "shards", tmp_path / "many", captions=30)).rows == 4


def test_what_the_guard_rejects_is_replaced_by_the_next_and_counted(tmp_path: Path) -> None:
    made = execute(STAGE, spec(shards(tmp_path / "shards", nonsense=20), tmp_path / "held"))

    assert made.ledger is not None and made.ledger.kept == 3
    assert sum(count for reason, count in made.ledger.dropped.items() if reason != "not_needed") > 0
    assert all("shipping" not in str(row["captions"]) for row in rows(tmp_path / "held"))

    with pytest.raises(BadInput, match="captions came through the guard"):
        execute(STAGE, spec(shards(tmp_path / "hopeless", nonsense=SAMPLES), tmp_path / "none"))


def test_a_translator_that_nothing_measured_does_not_pass_a_gate(tmp_path: Path) -> None:
    asked = spec(shards(tmp_path / "shards"), tmp_path / "held", least_bleu={"en-zh": 100.1})
    with pytest.raises(BadInput, match=r"at least 100\.1 is asked"):
        execute(STAGE, asked)


def test_a_plan_leaves_them_out_and_hands_them_on_to_the_training(tmp_path: Path) -> None:
    execute(STAGE, spec(shards(tmp_path / "shards"), tmp_path / "held"))
    inputs = tables.training_inputs(tmp_path / "inputs")
    plan = PlanSpec(
        output=tmp_path / "plan", kind="captions", tokenizer=inputs["language_model"], vision=inputs["vision"],
        shards={"week-1": tmp_path / "shards"}, target_languages=["zh"], prompts=["What?"], steps=2, batch_size=4,
        held_out_captions=tmp_path / "held",
    )  # fmt: skip
    made = execute(PLAN, plan)

    assert made.ledger is not None
    assert (made.ledger.kept, made.ledger.dropped) == (SAMPLES - 3, {"held_out": 3})
    assert rows(tmp_path / "plan") == rows(tmp_path / "held")
    with pytest.raises(ValueError, match="give `held_out`, a number, or `held_out_captions`"):
        PlanSpec.model_validate({**plan.model_dump(), "held_out": 3})
