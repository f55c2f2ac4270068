"""The plan of the training shards: the order of all samples, on disk, each with all that it is made of.

The order is that of a seeded hash of the uids: global, and no worker's doing. Pairs and translations are
parted by the hash into buckets that follow each other in the order; then each bucket is joined and sorted
by itself. A shard is a range of the plan, which is memory-mapped: reading it costs what it holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.lake import buckets, kept_pairs, location, manifest, takedown
from pipelines.progress import Progress
from pipelines.shard.spec import ShardSpec
from pipelines.translate.spec import DROPPED_FILE

COLUMNS = ("uid", "caption", "language", "shard", "offset", "length", "image_sha256")
"""The columns of the raw pairs that a sample is made of."""
_PAIRS = pa.schema(
    [
        *((name, pa.int64() if name in ("offset", "length") else pa.string()) for name in COLUMNS),
        ("key", pa.uint64()),
    ]
)
_TEXTS = pa.schema([("uid", pa.string()), ("language", pa.string()), ("text", pa.string())])
_TEXT = pa.struct([("language", pa.string()), ("text", pa.string())])


@dataclass(frozen=True)
class Plan:
    """The order of a crawl's samples, in `folder`."""

    folder: Path
    samples_per_shard: int
    bucket_rows: tuple[int, ...]
    """Samples per bucket; the buckets stand in the order of the samples."""
    taken_down: int
    """Kept pairs that are left out because their removal was demanded."""

    @property
    def samples(self) -> int:
        return sum(self.bucket_rows)

    @property
    def shards(self) -> int:
        return -(-self.samples // self.samples_per_shard)

    def read(self, start: int, end: int) -> Iterator[dict[str, Any]]:
        """The samples at places `start` to `end`: COLUMNS, and `texts`, translations sorted by language."""
        first = 0
        for number, rows in enumerate(self.bucket_rows):
            if first < end and start < first + rows:
                with pa.memory_map(str(_sorted_path(self.folder, number))) as mapped:
                    whole = pa.ipc.open_file(mapped).read_all()
                    at = max(0, start - first)
                    yield from whole.slice(at, min(rows, end - first) - at).to_pylist()
            first += rows


def make(spec: ShardSpec, folder: Path, progress: Progress) -> Plan:
    """The plan, from what an earlier, killed run left of it in `folder`.

    Memory holds one bucket: a 256th of the crawl's captions and translations, or a shard's.

    Raises:
        BadInput: a kept pair is not among the raw ones.
    """
    parted = folder / "parted.json"
    if not parted.is_file():
        location.write_bytes(parted, json.dumps(_part(spec, folder, progress)).encode())
    record = json.loads(parted.read_text())
    rows: list[int] = record["bucket_rows"]
    progress.start("planning", len(rows), unit="bucket")
    for number in range(len(rows)):
        if not _sorted_path(folder, number).is_file():
            _sort(folder, number)
        progress.advance()
    return Plan(folder, spec.parameters.samples_per_shard, tuple(rows), record["taken_down"])


def _part(spec: ShardSpec, folder: Path, progress: Progress) -> dict[str, Any]:
    """Part pairs and translations into buckets by their place in the order."""
    pairs = kept_pairs.count(spec.filtered_pairs)
    count = buckets.bucket_count(pairs, spec.parameters.samples_per_shard)
    seed = spec.parameters.seed
    demands = takedown.read(spec.takedown)
    progress.start("sorting", pairs, unit="pair")
    rows_per_bucket = np.zeros(count, dtype=np.int64)
    dropped: list[pa.Table] = []
    # URLs are needed only to be held against the demands.
    columns = (*COLUMNS, "url") if demands else COLUMNS
    with buckets.BucketWriter(folder / "pairs", _PAIRS, count) as writer:
        for kept in kept_pairs.read(spec.raw_pairs, spec.filtered_pairs, columns):
            rows = kept
            if demands:
                demanded = demands.match(kept["url"])
                rows = kept.filter(pc.invert(demanded))
                dropped.append(takedown.dropped(kept.filter(demanded)))
            keys = buckets.hash_keys(rows["uid"].to_pylist(), seed)
            writer.add(rows.select(list(COLUMNS)).append_column("key", pa.array(keys)), keys)
            rows_per_bucket += np.bincount(buckets.bucket_of(keys, count), minlength=count)
            progress.advance(len(kept))
    with buckets.BucketWriter(folder / "texts", _TEXTS, count) as writer:
        for language, rows in _translations(spec.translations):
            named = rows.append_column("language", pa.array([language] * len(rows), pa.string()))
            writer.add(named.select(_TEXTS.names), buckets.hash_keys(rows["uid"].to_pylist(), seed))
    taken_down = pa.concat_tables([takedown.DROPPED.empty_table(), *dropped])
    if len(taken_down):
        pq.write_table(taken_down, folder / "out" / DROPPED_FILE)
    return {"bucket_rows": rows_per_bucket.tolist(), "taken_down": len(taken_down)}


def _sort(folder: Path, number: int) -> None:
    """Join a bucket's pairs with their translations, in the order; the parted rows are then gone."""
    pairs = buckets.read_bucket(folder / "pairs", number)
    order = np.lexsort((pairs["uid"].to_numpy().astype("S32"), pairs["key"].to_numpy()))
    pairs = pairs.select(list(COLUMNS)).take(pa.array(order))
    texts = buckets.read_bucket(folder / "texts", number)
    table = pairs.append_column("texts", _by_pair(pairs["uid"], texts)).combine_chunks()
    path = _sorted_path(folder, number)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    with pa.OSFile(str(partial), "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    partial.replace(path)
    for parted in ("pairs", "texts"):
        buckets.bucket_path(folder / parted, number).unlink()


def _by_pair(uids: pa.ChunkedArray, texts: pa.Table) -> pa.ListArray:
    """The texts of each uid, sorted by language: one list per uid, in the order of `uids`."""
    places = pc.index_in(texts["uid"], uids).combine_chunks()
    known = pc.is_valid(places)
    texts, places = texts.filter(known), places.filter(known)
    by_language = pc.sort_indices(pa.table({"place": places, "language": texts["language"]}), [
        ("place", "ascending"), ("language", "ascending"),
    ])  # fmt: skip
    counts = np.bincount(places.to_numpy(zero_copy_only=False), minlength=len(uids))
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    texts = texts.take(by_language).combine_chunks()
    values = pa.StructArray.from_arrays(
        [_whole(texts["language"]), _whole(texts["text"])], fields=list(_TEXT)
    )
    return pa.ListArray.from_arrays(pa.array(ends), values)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _sorted_path(folder: Path, number: int) -> Path:
    return folder / "plan" / f"bucket-{number:03d}.arrow"


def _translations(table: Path | None) -> Iterator[tuple[str, pa.Table]]:
    """The translations in the table, by language, a row group at a time."""
    if table is None:
        return
    for path in manifest.files(table, ".parquet"):
        if path.name != DROPPED_FILE:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    yield path.stem, file.read_row_group(group)
