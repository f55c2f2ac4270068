"""The training shards: equal bytes for any workers, order of input and interruptions; nothing lost or invented."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.lake.shards import ShardReader, ShardWriter
from pipelines.shard.spec import STAGE, ShardParameters, ShardSpec
from pipelines.stage import execute
from tests import tables

ROWS = tables.world_rows(30)
KEPT = [row["uid"] for row in ROWS if row["uid"][0] in "0123456789a"]
TRANSLATED = KEPT[::2]
CHINESE = {uid: f"译文{number}。" for number, uid in enumerate(TRANSLATED)}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    tables.raw_pairs(folder / "raw", ROWS)
    tables.raw_pairs(folder / "raw-other-order", ROWS[::-1], shards=2)
    tables.filtered_pairs(folder / "filtered", KEPT)
    tables.translations(folder / "translations", {"zh": CHINESE})
    return folder


def spec(lake: Path, output: Path, **changes: Any) -> ShardSpec:
    settings: dict[str, Any] = {
        "raw_pairs": lake / "raw", "filtered_pairs": lake / "filtered", "translations": lake / "translations",
        "source": "week-1", "parameters": ShardParameters(samples_per_shard=4), "output": output,
    }  # fmt: skip
    return ShardSpec(**{**settings, **changes})


def bytes_of(table: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in manifest.files(table)}


@pytest.fixture(scope="module")
def undisturbed(lake: Path) -> dict[str, bytes]:
    execute(STAGE, spec(lake, lake / "undisturbed"))
    return bytes_of(lake / "undisturbed")


def test_two_workers_write_the_bytes_of_one(
    lake: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    execute(STAGE, spec(lake, tmp_path / "out", workers=2))
    assert bytes_of(tmp_path / "out") == undisturbed


def test_raw_shards_in_another_order_give_the_same_bytes(
    lake: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    execute(STAGE, spec(lake, tmp_path / "out", raw_pairs=lake / "raw-other-order"))
    assert bytes_of(tmp_path / "out") == undisturbed


def _run_and_die(spec: ShardSpec, after: int) -> None:
    added = 0
    add = ShardWriter.add

    def dying(self: ShardWriter, *arguments: Any) -> None:
        nonlocal added
        if added == after:
            os.kill(os.getpid(), signal.SIGKILL)
        added += 1
        add(self, *arguments)

    ShardWriter.add = dying  # type: ignore[method-assign]
    execute(STAGE, spec)


@pytest.mark.parametrize("after", [0, 5, 8])
def test_a_killed_run_goes_on_to_the_same_bytes(
    lake: Path, tmp_path: Path, undisturbed: dict[str, bytes], after: int
) -> None:
    described = spec(lake, tmp_path / "out")
    process = multiprocessing.get_context("spawn").Process(target=_run_and_die, args=(described, after))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL
    assert not manifest.exists(tmp_path / "out")
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("_work/*/out/*.tar")}
    assert len(finished) == after // 4
    execute(STAGE, described)
    assert bytes_of(tmp_path / "out") == undisturbed
    after_all = {path.name: path.stat().st_mtime_ns for path in manifest.files(tmp_path / "out", ".tar")}
    assert finished.items() <= after_all.items()


def test_every_kept_pair_is_there_once_with_its_image_and_all_captions(
    lake: Path, undisturbed: dict[str, bytes]
) -> None:
    reader = ShardReader(lake / "undisturbed")
    assert sorted(reader.uids.to_pylist()) == sorted(KEPT)
    assert reader.uids.to_pylist() != sorted(KEPT)
    rows = {row["uid"]: row for row in ROWS}
    for place, uid in enumerate(reader.uids.to_pylist()):
        image, document = reader[place]
        captions = {"en": rows[uid]["caption"]} | ({"zh": CHINESE[uid]} if uid in CHINESE else {})
        assert image == rows[uid]["image"]
        assert document == {"uid": uid, "source": "week-1", "captions": captions}
        assert reader.languages[place].as_py() == sorted(captions)


def test_pairs_without_a_translation_are_kept_and_counted(lake: Path, undisturbed: dict[str, bytes]) -> None:
    made = manifest.read(lake / "undisturbed")
    assert made.ledger is not None
    assert (made.ledger.rows_in, made.ledger.kept) == (len(KEPT), len(KEPT))
    assert made.metrics["samples_without_translation"] == len(KEPT) - len(TRANSLATED)
    assert made.metrics["captions"] == {"en": len(KEPT), "zh": len(TRANSLATED)}


def test_webdataset_streams_the_published_shards(lake: Path, undisturbed: dict[str, bytes]) -> None:
    import webdataset  # brings torch, which costs the other tests ten seconds

    urls = [str(path) for path in manifest.files(lake / "undisturbed", ".tar")]
    read = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in read] == ShardReader(lake / "undisturbed").uids.to_pylist()
    assert all(json.loads(sample["json"])["captions"]["en"] for sample in read)


def test_another_seed_is_another_order_of_the_same_samples(lake: Path, tmp_path: Path) -> None:
    execute(STAGE, spec(lake, tmp_path / "out", parameters=ShardParameters(seed=1, samples_per_shard=4)))
    first = ShardReader(lake / "undisturbed").uids.to_pylist()
    second = ShardReader(tmp_path / "out").uids.to_pylist()
    assert first != second
    assert sorted(first) == sorted(second)


def test_shards_can_be_made_without_translations_and_of_nothing(lake: Path, tmp_path: Path) -> None:
    tables.filtered_pairs(tmp_path / "nothing", [])
    made = execute(STAGE, spec(lake, tmp_path / "plain", translations=None))
    assert made.metrics["captions"] == {"en": len(KEPT)}
    empty = execute(STAGE, spec(lake, tmp_path / "empty", filtered_pairs=tmp_path / "nothing"))
    assert empty.metrics["shards"] == len(ShardReader(tmp_path / "empty")) == 0


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    raw = tables.raw_pairs(tmp_path / "raw", ROWS, shards=1)
    tar = manifest.folder(raw) / "shard-00000.tar"
    content = bytearray(tar.read_bytes())
    content[600] ^= 1
    tar.write_bytes(content)
    tables.filtered_pairs(tmp_path / "filtered", [row["uid"] for row in ROWS])
    with pytest.raises(BadInput, match=r"shard-00000\.tar"):
        execute(STAGE, spec(tmp_path, tmp_path / "out", translations=None))


def test_a_kept_pair_that_is_not_among_the_raw_ones_is_refused(lake: Path, tmp_path: Path) -> None:
    tables.filtered_pairs(tmp_path / "filtered", [*KEPT, "f" * 32])
    with pytest.raises(BadInput, match="score and filter"):
        execute(STAGE, spec(lake, tmp_path / "out", filtered_pairs=tmp_path / "filtered"))
