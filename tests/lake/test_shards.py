"""Shards: bytes depend on the samples alone, webdataset reads them, and the index finds every sample."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.lake.shards import INDEX, INDEX_FILE, ShardReader, ShardWriter, image_extension, write_index
from tests.lake.reading_process import read_all
from tests.tables import publish

Sample = tuple[str, bytes, dict[str, str]]
JPEG = b"\xff\xd8\xff"

samples_strategy = st.lists(
    st.tuples(
        st.text("0123456789abcdef", min_size=32, max_size=32),
        st.binary(max_size=1500).map(lambda content: JPEG + content),
        st.dictionaries(
            st.sampled_from(["en", "zh", "fr"]), st.text(st.characters(exclude_categories=["Cs"])), min_size=1
        ),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda sample: sample[0],
)


def write(folder: Path, samples: list[Sample], samples_per_shard: int = 3) -> None:
    with ShardWriter(folder, "shard", samples_per_shard) as writer:
        for uid, image, captions in samples:
            document = {"uid": uid, "source": "test", "captions": captions}
            writer.add(uid, image, image_extension(image), document, captions)
    write_index(folder / INDEX_FILE, writer.rows)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


FEW: list[Sample] = [
    (f"{n:032x}", JPEG + bytes([n]) * n * 100, {"en": f"caption {n}", "zh": f"说明{n}"}) for n in range(8)
]


@settings(max_examples=25, deadline=None)
@given(samples=samples_strategy, samples_per_shard=st.integers(1, 5))
def test_equal_samples_give_equal_bytes_and_the_index_finds_each(
    tmp_path_factory: pytest.TempPathFactory, samples: list[Sample], samples_per_shard: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    table = publish(folder / "table", lambda out: write(out, samples, samples_per_shard))
    again = folder / "again"
    again.mkdir()
    write(again, samples, samples_per_shard)
    assert contents(manifest.folder(table)) == contents(again)
    reader = ShardReader(table)
    assert reader.uids.to_pylist() == [uid for uid, _, _ in samples]
    for place, (uid, image, captions) in enumerate(samples):
        assert reader[place] == (image, {"uid": uid, "source": "test", "captions": captions})
        assert reader.languages[place].as_py() == sorted(captions)
    reader.close()


def test_webdataset_reads_every_sample_in_order(tmp_path: Path) -> None:
    import webdataset  # brings torch, which costs the other tests ten seconds

    write(tmp_path, FEW)
    urls = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    read: list[dict[str, Any]] = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in read] == [uid for uid, _, _ in FEW]
    assert [sample["jpg"] for sample in read] == [image for _, image, _ in FEW]
    assert [json.loads(sample["json"])["captions"] for sample in read] == [captions for _, _, captions in FEW]


def test_members_have_no_time_and_no_owner(tmp_path: Path) -> None:
    write(tmp_path, FEW)
    with tarfile.open(tmp_path / "shard-00000.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)


def test_a_writer_that_fails_leaves_no_torn_tar(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, "shard", 2) as writer:
        for uid, image, captions in FEW[:3]:
            writer.add(uid, image, "jpg", captions, captions)
        raise RuntimeError("the source failed")
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00000.tar"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_reader_in_use_serves_other_processes_too(tmp_path: Path, method: str) -> None:
    reader = ShardReader(publish(tmp_path / "table", lambda out: write(out, FEW)))
    here = [reader[place] for place in range(len(reader))]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    processes = [context.Process(target=read_all, args=(reader, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    there = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert there == [here, here]


def test_a_pickled_reader_carries_no_open_files(tmp_path: Path) -> None:
    reader = ShardReader(publish(tmp_path / "table", lambda out: write(out, FEW)))
    first = reader[0]
    copy = pickle.loads(pickle.dumps(reader))  # noqa: S301
    reader.close()
    assert copy[0] == first


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    table = publish(tmp_path / "table", lambda out: write(out, FEW))
    shard = manifest.folder(table) / "shard-00000.tar"
    shard.write_bytes(shard.read_bytes()[:600])
    with pytest.raises(BadInput, match=r"shard-00000\.tar"):
        ShardReader(table)[2]


def test_samples_of_several_images_stand_beside_others(tmp_path: Path) -> None:
    import webdataset

    png = b"\x89PNG\r\n\x1a\n"
    images = [[JPEG + b"a"], [JPEG + b"b", png + b"c", JPEG + b"d"], [], [png + b"e", JPEG + b"f"]]

    def write_some(out: Path) -> None:
        with ShardWriter(out, "shard", 3) as writer:
            for number, (first, *further) in enumerate([one or [b""] for one in images]):
                uid = f"{number:032x}"
                document = {"uid": uid, "number": number}
                writer.add(
                    uid, first or None, image_extension(first), document, ["en"], further_images=further
                )
        write_index(out / INDEX_FILE, writer.rows)

    table = publish(tmp_path / "table", write_some)
    reader = ShardReader(table)
    assert [reader.images(place) for place in range(len(reader))] == [1, 3, 0, 2]
    for place, expected in enumerate(images):
        assert [reader.image(place, number) for number in range(reader.images(place))] == expected
        assert reader.document(place)["number"] == place
        with pytest.raises(IndexError):
            reader.image(place, max(len(expected), 1))
    urls = [str(path) for path in sorted(manifest.folder(table).glob("*.tar"))]
    second = list(webdataset.WebDataset(urls, shardshuffle=False))[1]
    assert [second[name] for name in ("jpg", "1.png", "2.jpg")] == images[1]
    again = tmp_path / "again"
    again.mkdir()
    write_some(again)
    assert contents(manifest.folder(table)) == contents(again)


def test_an_index_without_several_images_is_as_it_always_was(tmp_path: Path) -> None:
    write(tmp_path, FEW)
    assert pq.read_schema(tmp_path / INDEX_FILE).names == INDEX.names


def test_a_further_image_without_a_first_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no first image"), ShardWriter(tmp_path, "shard", 2) as writer:
        writer.add("a" * 32, None, "", {}, ["en"], further_images=[JPEG])
