"""The shard writer: same rows, same bytes, in whatever order they come; and nothing lost silently."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.download import web, worker
from pipelines.download.addresses import Policy
from pipelines.download.guard import GuardedOpener
from pipelines.download.readers.record import WEB
from pipelines.download.reasons import Failure, Reason
from pipelines.download.source import RejectedRow, ShardRow
from pipelines.download.suspects import Suspects
from pipelines.download.worker import Settings, ShardRecord, ShardTask, record_path
from pipelines.download.writer import ShardCounts, ShardWriter, names
from tests.download.conftest import limits
from tests.download.hostile_server import picture

Sample = tuple[ShardRow, bytes | None]
GONE = Failure(Reason.HTTP_404, "status 404")


def sample(at: int, *, kept: bool) -> Sample:
    row = ShardRow(at, f"{at:032x}", f"http://a/{at}", f"标题 {at}", WEB)
    return row, picture(at, size=(16, 16)) if kept else None


def writer(folder: Path, rows: int, rejected: list[RejectedRow] | None = None) -> ShardWriter:
    folder.mkdir(exist_ok=True)
    return ShardWriter(
        folder, 3, "pairs", rows=rows, rejected=rejected or [], language="en", progress=lambda rows: None
    )


def written(
    folder: Path, samples: list[Sample], rejected: list[RejectedRow] | None = None
) -> tuple[list[bytes], ShardCounts]:
    shard = writer(folder, len(samples), rejected)
    for row, image in samples:
        if image is None:
            shard.drop([row], GONE)
        else:
            shard.keep([row], image, 16, 16)
    counts = shard.close()
    return [(folder / name).read_bytes() for name in names(3)], counts


@settings(max_examples=20, deadline=None)
@given(kept=st.lists(st.booleans(), max_size=8), data=st.data())
def test_the_files_depend_on_the_rows_and_not_on_their_order(
    kept: list[bool], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    samples = [sample(at, kept=one) for at, one in enumerate(kept)]
    order = data.draw(st.permutations(samples))
    folder = tmp_path_factory.mktemp("writer")
    first, counts = written(folder / "a", samples)
    assert written(folder / "b", list(order))[0] == first
    assert (counts.kept, sum(counts.dropped.values())) == (sum(kept), len(kept) - sum(kept))


def test_offsets_lead_to_the_images_and_members_are_named_by_uid(tmp_path: Path) -> None:
    samples = [sample(at, kept=at != 1) for at in range(4)]
    rejected = [RejectedRow(4, "f" * 32, "", "text", "url_empty", "")]
    written(tmp_path / "shard", samples, rejected)
    tar, pairs, dropped = ((tmp_path / "shard" / name) for name in names(3))
    data = tar.read_bytes()
    rows = pq.read_table(pairs).to_pylist()
    assert [row["uid"] for row in rows] == [samples[at][0].uid for at in (0, 2, 3)]
    for row in rows:
        image = data[row["offset"] : row["offset"] + row["length"]]
        assert hashlib.sha256(image).hexdigest() == row["image_sha256"]
        assert row["shard"] == tar.name
    with tarfile.open(tar) as archive:
        members = [member.name for member in archive]
        assert members == [f"{row['uid']}.{kind}" for row, kind in itertools.product(rows, ("jpg", "txt"))]
        text = archive.extractfile(members[1])
        assert text is not None
        assert text.read().decode() == rows[0]["caption"]
    assert [(row["uid"], row["reason"], row["detail"]) for row in pq.read_table(dropped).to_pylist()] == [
        (samples[1][0].uid, "http_404", "status 404"), ("f" * 32, "url_empty", ""),
    ]  # fmt: skip


def test_rows_that_share_an_image_share_its_bytes(tmp_path: Path) -> None:
    first, second, third = (sample(at, kept=True) for at in range(3))
    assert third[1] is not None
    shard = writer(tmp_path / "shard", 3)
    shard.keep([third[0], first[0]], third[1], 16, 16)
    shard.drop([second[0]], GONE)
    assert shard.close().image_bytes == len(third[1])
    rows = pq.read_table(tmp_path / "shard" / names(3)[1]).to_pylist()
    assert [row["uid"] for row in rows] == [first[0].uid, third[0].uid]
    assert rows[0]["offset"] == rows[1]["offset"]
    with tarfile.open(tmp_path / "shard" / names(3)[0]) as archive:
        assert archive.getnames() == [f"{first[0].uid}.jpg", f"{first[0].uid}.txt", f"{third[0].uid}.txt"]


def test_a_row_that_never_came_is_an_error(tmp_path: Path) -> None:
    shard = writer(tmp_path / "shard", 2)
    shard.drop([sample(0, kept=False)[0]], GONE)
    with pytest.raises(RuntimeError, match="2 rows went in and 1 came out"):
        shard.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_raised_though_img2dataset_swallows_errors(tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to("/dev/full")
    rows = [[sample(at, kept=True)[0]] for at in range(20)]
    policy, suspects = Policy(frozenset({80})), Suspects(tmp_path / "at_work", 0, 1)
    adapter = web._Adapter(
        rows, writer(tmp_path, 20), GuardedOpener(limits(80), policy), limits(80), suspects
    )
    for at in range(20):
        adapter.write(picture(at) * 100, "key", None, {"group": at})
    assert adapter.error is not None
    assert adapter.error.errno == errno.ENOSPC


@pytest.mark.parametrize("before", range(4))
def test_a_shard_counts_as_whole_only_when_its_last_file_stands_at_its_name(
    before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publish is stopped before each of its renames in turn."""
    out, done, scratch = (tmp_path / name for name in ("out", "done", "scratch"))
    for folder in (out, done, scratch / "tasks"):
        folder.mkdir(parents=True)
    settings_ = Settings(
        parameters=limits(80), policy=Policy(frozenset({80})), language="en", threads=1,
        out=out, scratch=scratch, done=done, at_work=tmp_path / "at_work",
    )  # fmt: skip
    task = ShardTask(shard=3, normalised=0)
    task.file(scratch).write_text("{}")
    expected, counts = written(scratch / "shard", [sample(at, kept=True) for at in range(3)])
    renames = itertools.count()
    rename = os.replace

    def stopping(source: Path, target: Path) -> None:
        if next(renames) == before:
            raise InterruptedError
        rename(source, target)

    monkeypatch.setattr(os, "replace", stopping)
    monkeypatch.setattr(Path, "replace", stopping)
    with pytest.raises(InterruptedError):
        worker._publish(settings_, task, scratch / "shard", counts)
    assert not record_path(done, 3).exists()
    written(scratch / "shard", [sample(at, kept=True) for at in range(3)])
    worker._publish(settings_, task, scratch / "shard", counts)
    record = ShardRecord.model_validate_json(record_path(done, 3).read_bytes())
    assert record.matches(out)
    assert [(out / name).read_bytes() for name in names(3)] == expected
