"""The shard writer: same rows, same bytes, in whatever order they come; and nothing lost silently."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.download import worker
from pipelines.download.addresses import Policy
from pipelines.download.worker import Settings, ShardRecord, ShardTask, record_path
from pipelines.download.writer import ShardCounts, ShardWriter, names
from tests.download.conftest import limits
from tests.download.hostile_server import picture

Sample = tuple[bytes | None, dict[str, Any]]


def sample(at: int, *, kept: bool) -> Sample:
    image = picture(at, size=(16, 16)) if kept else None
    meta = {
        "position": at, "uid": f"{at:032x}", "url": f"http://a/{at}", "caption": f"标题 {at}",
        "width": 16, "height": 16,
        "sha256": hashlib.sha256(image or b"").hexdigest(),
        "error_message": None if kept else "http_404: status 404",
    }  # fmt: skip
    return image, meta


def writer(
    folder: Path, rows: int, done: list[ShardCounts], rejected: list[Any] | None = None
) -> ShardWriter:
    folder.mkdir(exist_ok=True)
    return ShardWriter(
        3, str(folder), True, 5, pa.schema([]), "jpg", rows=rows, rejected=rejected or [], language="en",
        progress=lambda rows: None, done=done.append,
    )  # fmt: skip


def written(
    folder: Path, samples: list[Sample], rejected: list[Any] | None = None
) -> tuple[list[bytes], ShardCounts]:
    done: list[ShardCounts] = []
    shard = writer(folder, len(samples), done, rejected)
    for image, meta in samples:
        shard.write(image, "key", meta["caption"], meta)
    shard.close()
    return [(folder / name).read_bytes() for name in names(3)], done[0]


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
    rejected = [(4, "f" * 32, "", "text", "url_empty", "")]
    written(tmp_path / "shard", samples, rejected)
    tar, pairs, dropped = ((tmp_path / "shard" / name) for name in names(3))
    data = tar.read_bytes()
    rows = pq.read_table(pairs).to_pylist()
    assert [row["uid"] for row in rows] == [samples[at][1]["uid"] for at in (0, 2, 3)]
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
        (samples[1][1]["uid"], "http_404", "status 404"), ("f" * 32, "url_empty", ""),
    ]  # fmt: skip


def test_a_row_that_never_came_is_an_error(tmp_path: Path) -> None:
    shard = writer(tmp_path / "shard", 2, [])
    image, meta = sample(0, kept=True)
    shard.write(image, "key", None, meta)
    with pytest.raises(RuntimeError, match="2 rows went in and 1 came out"):
        shard.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_raised_though_img2dataset_swallows_errors(tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to("/dev/full")
    shard = writer(tmp_path, 20, [])
    for at in range(20):
        image, meta = sample(at, kept=True)
        shard.write(image * 100 if image else None, "key", None, meta)
    with pytest.raises(OSError) as caught:
        shard.close()
    assert caught.value.errno == errno.ENOSPC


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
        out=out, scratch=scratch, done=done,
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
