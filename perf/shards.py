"""Samples per second written and read, against webdataset's ShardWriter and iterator, on equal samples.

The contenders take turns, round by round. Ours writes tars with fixed headers and an index, and syncs each to
the disk before it gets its name; webdataset's does neither. Reading gives the same bytes and parsed JSON: webdataset
streams the tars; ours reads by (shard, offset) from the index, once in order and once in a random order.

    OMP_NUM_THREADS=1 python -m perf.shards --samples 4000
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import webdataset

from pipelines.lake.identity import document_sha256, file_sha256, pair_uid
from pipelines.lake.manifest import Manifest, TableFile, write
from pipelines.lake.shards import INDEX_FILE, ShardReader, ShardWriter, write_index

PER_SHARD = 1000


def write_ours(folder: Path, samples: list[tuple[str, bytes, dict[str, object]]]) -> None:
    with ShardWriter(folder, "shard", PER_SHARD) as writer:
        for uid, image, document in samples:
            writer.add(uid, image, "jpg", document, ["en"])
    write_index(folder / INDEX_FILE, writer.rows)


def write_theirs(folder: Path, samples: list[tuple[str, bytes, dict[str, object]]]) -> None:
    with webdataset.ShardWriter(str(folder / "shard-%05d.tar"), maxcount=PER_SHARD, verbose=0) as writer:
        for uid, image, document in samples:
            writer.write({"__key__": uid, "jpg": image, "json": document})


def publish(folder: Path) -> None:
    """The manifest that a reader of ours starts from."""
    files = [
        TableFile(path=f"{folder.name}/{path.name}", sha256=file_sha256(path), bytes=path.stat().st_size)
        for path in sorted(folder.iterdir())
    ]
    write(
        folder.parent,
        Manifest(
            stage="perf", code_version="1", fingerprint=folder.name, parameters={}, inputs={}, files=files,
            created="", seconds=0,
        ),
    )  # fmt: skip


def read_theirs(folder: Path) -> int:
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    return sum(
        len(sample["jpg"]) + len(json.loads(sample["json"])["captions"])
        for sample in webdataset.WebDataset(urls, shardshuffle=False)
    )


def read_ours(folder: Path, shuffled: bool) -> int:
    reader = ShardReader(folder.parent)
    places = list(range(len(reader)))
    if shuffled:
        random.Random(0).shuffle(places)
    total = 0
    for place in places:
        image, document = reader[place]
        total += len(image) + len(document["captions"])
    reader.close()
    return total


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--bytes", type=int, default=40_000, help="of an image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    arguments = parser.parse_args()
    generator = random.Random(0)
    samples: list[tuple[str, bytes, dict[str, object]]] = []
    for number in range(arguments.samples):
        uid = pair_uid(str(number), "")
        captions = {"en": f"a picture with the number {number}", "zh": f"一张写着{number}的图片"}
        image = b"\xff\xd8\xff" + generator.randbytes(arguments.bytes)
        samples.append((uid, image, {"uid": uid, "source": "perf", "captions": captions}))
    root = Path(tempfile.mkdtemp(prefix="shards-", dir=arguments.folder))
    ours, theirs = root / "table" / document_sha256({})[:16], root / "theirs"
    figures: dict[str, list[tuple[float, float]]] = {}
    try:
        for _ in range(arguments.rounds):
            for folder in (ours, theirs):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            figures.setdefault("write, ours", []).append(timed(lambda: write_ours(ours, samples)))
            figures.setdefault("write, webdataset", []).append(timed(lambda: write_theirs(theirs, samples)))
            publish(ours)
            assert read_ours(ours, True) == read_theirs(ours) == read_theirs(theirs)
            figures.setdefault("read in order, ours", []).append(timed(lambda: read_ours(ours, False)))
            figures.setdefault("read shuffled, ours", []).append(timed(lambda: read_ours(ours, True)))
            figures.setdefault("read, webdataset", []).append(timed(lambda: read_theirs(theirs)))
    finally:
        shutil.rmtree(root)
    print(
        f"{arguments.samples:,} samples of {arguments.bytes:,} bytes, median of {arguments.rounds} rounds in turns"
    )
    print(f"{'':22}{'samples/s':>12}{'samples/CPU s':>15}")
    rates = {}
    for name, rounds in figures.items():
        wall, cpu = (statistics.median(one[axis] for one in rounds) for axis in (0, 1))
        rates[name] = arguments.samples / cpu
        print(f"{name:22}{arguments.samples / wall:12,.0f}{rates[name]:15,.0f}")
    print(
        f"ratio by CPU time: written {rates['write, ours'] / rates['write, webdataset']:.1f}x, read in order "
        f"{rates['read in order, ours'] / rates['read, webdataset']:.1f}x, read shuffled "
        f"{rates['read shuffled, ours'] / rates['read, webdataset']:.1f}x"
    )


if __name__ == "__main__":
    main()
