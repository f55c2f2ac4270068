"""The stage that makes a pack plan: every sample is in it or counted with its reason, and it fits its shards alone."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from models.chat_template import IMAGE_MARKER
from models.cpm_bee_chat import FIRST_PIECES
from models.vision_language import assemble
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.lake.identity import pair_uid
from pipelines.lake.shards import ShardWriter, write_index
from pipelines.progress import Progress
from pipelines.stage import execute
from pipelines.training import measuring
from pipelines.training.conversations import ShardSamples
from pipelines.training.plan import PLAN_FILE, read_plan
from pipelines.training.planning import HELD_OUT_FILE, plan_for
from pipelines.training.samples import collate
from pipelines.training.spec import PLAN, PlanSpec
from pipelines.training.texts import InstructionTexts, ShardTexts
from pipelines.world.render import jpeg
from pipelines.world.scenes import draw_scenes
from tests import tables


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tables.training_inputs(tmp_path_factory.mktemp("inputs"))


def spec(inputs: dict[str, Path], output: Path, **more: object) -> PlanSpec:
    told = {
        "kind": "captions", "tokenizer": inputs["language_model"], "vision": inputs["vision"],
        "shards": {"week-1": inputs["shards"]}, "pivot_language": "en", "target_languages": ["zh"],
        "prompts": ["Describe the picture.", "What?"], "steps": 9, "batch_size": 8, "pack_tokens": 96,
        "packs_multiple": 2, "held_out": 3,
    }  # fmt: skip
    return PlanSpec(output=output, **{**told, **more})


def test_every_sample_is_planned_or_counted_with_its_reason(inputs: dict[str, Path], tmp_path: Path) -> None:
    made = execute(PLAN, spec(inputs, tmp_path))

    assert made.ledger is not None and made.ledger.balanced
    assert made.ledger.dropped == {"held_out": 3}
    plan = read_plan(manifest.file(tmp_path, PLAN_FILE))
    seen = Counter(draw for step in range(plan.steps) for pack in plan.packs(step) for draw in pack.draws)
    assert {sample for _, sample in seen} | held_out_places(inputs, tmp_path) == set(range(40))
    assert len({sample for _, sample in seen}) == 37
    assert plan.groups == ("test/en",)
    assert all(pack.tokens <= 96 for step in range(plan.steps) for pack in plan.packs(step))
    assert all(len(plan.packs(step)) % 2 == 0 for step in range(plan.steps))
    assert made.metrics["epochs"] == {"week-1": round(72 / 37, 3)}
    assert 0.5 < made.metrics["pack_fill"] <= 1


def test_a_process_per_core_measures_the_same(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = execute(PLAN, spec(inputs, tmp_path / "alone"))
    monkeypatch.setattr(measuring, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(measuring, "AT_ONCE", 7)
    monkeypatch.setattr(measuring, "usable_cores", lambda: 2)
    shared = execute(PLAN, spec(inputs, tmp_path / "shared"))
    assert shared.data_version == alone.data_version
    assert shared.ledger == alone.ledger


def test_what_a_process_cannot_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = tables.training_inputs(tmp_path / "inputs")
    monkeypatch.setattr(measuring, "WORTH_PROCESSES", 1)
    # Its index and manifest stand, so the damage shows where a text is read.
    shard = next(manifest.folder(inputs["shards"]).glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:600])
    with pytest.raises(BadInput, match=shard.name):
        measuring.measured(spec(inputs, tmp_path / "plan"), 40, set(), Progress("test", silent=True))


def held_out_places(inputs: dict[str, Path], table: Path) -> set[int]:
    held = pq.read_table(manifest.file(table, HELD_OUT_FILE)).to_pylist()
    assert all(set(json.loads(row["captions"])) == {"en", "zh"} for row in held)
    uids = pq.read_table(manifest.file(inputs["shards"], "index.parquet"))["uid"].to_pylist()
    return {uids.index(row["uid"]) for row in held}


def test_samples_that_no_pack_holds_are_dropped_by_reason(inputs: dict[str, Path], tmp_path: Path) -> None:
    ledger = execute(PLAN, spec(inputs, tmp_path, pack_tokens=29, held_out=0)).ledger
    assert ledger is not None and ledger.balanced
    assert ledger.dropped.keys() == {"longer_than_a_pack"} and 0 < ledger.kept < 40


def test_equal_inputs_give_equal_bytes_and_a_plan_of_other_shards_is_refused(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    first, second = (execute(PLAN, spec(inputs, tmp_path / name)) for name in ("one", "two"))
    assert first.data_version == second.data_version
    plan = plan_for(tmp_path / "one", {"week-1": inputs["shards"]})
    assert plan is not None and plan.steps == 9

    others = tables.training_shards(tmp_path / "others", 12)
    with pytest.raises(BadInput, match="made of other shards"):
        plan_for(tmp_path / "one", {"week-1": others})


def test_a_mixture_that_names_no_source_says_which_there_are(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"wukong.*\n.*\n.*week-1"):
        execute(PLAN, spec(inputs, tmp_path, mixture={"wukong": 1.0}))
    with pytest.raises(BadInput, match="no sample of week-1"):
        execute(PLAN, spec(inputs, tmp_path, pack_tokens=4))


@pytest.mark.parametrize("bee", [True, False])
def test_answers_that_are_context_alone_are_counted(
    bee: bool, inputs: dict[str, Path], tmp_path: Path
) -> None:
    """CPM-Bee learns the last answer of a conversation; other templates have all of them learned."""

    def write_vocabulary(folder: Path) -> None:
        pieces = [*FIRST_PIECES, *"abcdefghijklmnopqrstuvwxyzUAI:?."]
        (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")

    def write_conversations(folder: Path) -> None:
        with ShardWriter(folder, "shard", 4) as writer:
            for turns in (1, 2, 3, 4):
                uid = pair_uid(str(turns), "")
                turn = {"question": "what?", "answer": "red", "language": "en"}
                writer.add(uid, None, "jpg", {"uid": uid, "source": "test", "turns": [turn] * turns}, ["en"])
        write_index(folder / "index.parquet", writer.rows)

    vocabulary = tables.publish(tmp_path / "vocabulary", write_vocabulary)
    talks = tables.publish(tmp_path / "talks", write_conversations)

    made = execute(
        PLAN,
        spec(
            inputs, tmp_path / "plan", kind="conversations", shards={"instructions": talks}, held_out=0, prompts=[], pack_tokens=256,
            **({"tokenizer": vocabulary} if bee else {}),
        ),
    )  # fmt: skip

    assert made.ledger is not None and made.ledger.kept == 4
    assert made.metrics["answers_not_learned"] == (0 + 1 + 2 + 3 if bee else 0)


def test_every_image_of_a_sample_is_counted_and_decoded_in_its_place(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    scenes = draw_scenes(6, seed=4)
    counts = [1, 0, 3, 2]
    first = np.cumsum([0, *counts])

    def write_conversations(folder: Path) -> None:
        with ShardWriter(folder, "shard", 4) as writer:
            for number, count in enumerate(counts):
                uid = pair_uid(str(number), "")
                asked = "and".join([IMAGE_MARKER] * count) if count > 1 else "what?"
                turn = {"question": asked, "answer": "red", "language": "en"}
                files = [jpeg(scene) for scene in scenes[first[number] : first[number] + count]]
                document = {"uid": uid, "source": "test", "turns": [turn]}
                writer.add(
                    uid, files[0] if files else None, "jpg", document, ["en"], further_images=files[1:]
                )
        write_index(folder / "index.parquet", writer.rows)

    table = tables.publish(tmp_path / "talks", write_conversations)
    told = spec(
        inputs, tmp_path / "plan", kind="conversations", shards={"instructions": table}, held_out=0, prompts=[],
        steps=1, batch_size=4,
    )  # fmt: skip
    made = execute(PLAN, told)
    assert made.ledger is not None and made.ledger.kept == 4
    assert made.metrics["images_per_step"] == sum(counts)

    model = assemble(manifest.folder(inputs["language_model"]), manifest.folder(inputs["vision"]))
    shards = ShardTexts([table])
    samples = ShardSamples(
        shards, InstructionTexts(shards, model.chat), model.visual.preprocess, model.visual.image_size
    )
    chosen = [samples.sample(place, 0) for place in range(4)]
    for number, count in enumerate(counts):
        ids = chosen[number].text.ids
        assert ids.count(model.image_id) == count * model.image_tokens
    batch = collate(chosen, pad=model.pad_id, packed=True, groups=["test/en"])
    assert batch.images == sum(counts) and batch.pixels is not None
    expected = [model.visual.preprocess(Image.open(io.BytesIO(jpeg(scene)))) for scene in scenes]
    np.testing.assert_array_equal(batch.pixels.numpy(), np.stack(expected))


def test_a_sample_with_other_markers_than_images_is_named(inputs: dict[str, Path], tmp_path: Path) -> None:
    uid = pair_uid("two", "")

    def write_conversations(folder: Path) -> None:
        with ShardWriter(folder, "shard", 4) as writer:
            turn = {"question": IMAGE_MARKER * 3, "answer": "red", "language": "en"}
            document = {"uid": uid, "source": "test", "turns": [turn]}
            one, two = (jpeg(scene) for scene in draw_scenes(2, seed=4))
            writer.add(uid, one, "jpg", document, ["en"], further_images=[two])
        write_index(folder / "index.parquet", writer.rows)

    table = tables.publish(tmp_path / "talks", write_conversations)
    told = spec(
        inputs,
        tmp_path / "plan",
        kind="conversations",
        shards={"instructions": table},
        held_out=0,
        prompts=[],
    )
    with pytest.raises(BadInput, match="3 <image> markers for 2 images") as caught:
        execute(PLAN, told)
    assert uid in caught.value.where
