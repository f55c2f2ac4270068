"""Filter and shards with every table in an object store: the same bytes as on a disk, which stays empty."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.lake import cache, manifest
from pipelines.lake.shards import ShardReader
from pipelines.progress import Progress
from pipelines.shard import write
from pipelines.shard.spec import STAGE, ShardParameters, ShardSpec
from pipelines.stage import InputTable, Outcome, Stage, StageSpec, Work, execute
from tests import tables

ROWS = tables.world_rows(14)


class CopySpec(StageSpec):
    table: InputTable


def _copy(spec: CopySpec, work: Work, progress: Progress) -> Outcome:
    for path in manifest.files(spec.table):
        shutil.copyfile(path, work.out / path.name)
    return Outcome()


COPY = Stage("copy", "tests.copy", CopySpec, "1", _copy, "Copies a table.")


def spec(root: Path, output: Path) -> ShardSpec:
    return ShardSpec(
        output=output, raw_pairs=root / "raw_pairs", filtered_pairs=root / "filtered_pairs",
        translations=root / "translations", parameters=ShardParameters(samples_per_shard=4),
    )  # fmt: skip


def test_shards_are_made_and_read_in_the_store_as_on_a_disk(
    s3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    tables.raw_pairs(here / "raw_pairs", ROWS)
    tables.filtered_pairs(here / "filtered_pairs", [row["uid"] for row in ROWS])
    tables.translations(here / "translations", {"zh": {row["uid"]: "译文" for row in ROWS[::2]}})
    for name in ("raw_pairs", "filtered_pairs", "translations"):
        execute(COPY, CopySpec(output=s3 / name, table=here / name))
    expected = execute(STAGE, spec(here, here / "shards"))

    left: list[int] = []
    write_shard = write.write_shard

    def watched(task: write.Task, shard: int) -> None:
        write_shard(task, shard)
        left.append(len(list(task.work.out.iterdir())))

    monkeypatch.setattr(write, "write_shard", watched)
    made = execute(STAGE, spec(s3, s3 / "shards"))

    assert made.data_version == expected.data_version
    assert made.metrics == expected.metrics
    assert left == [0] * made.metrics["shards"]
    ours, theirs = ShardReader(s3 / "shards"), ShardReader(here / "shards")
    assert [ours[place] for place in range(len(ours))] == [theirs[place] for place in range(len(theirs))]
    assert not list(cache.root().rglob("*.tar"))
