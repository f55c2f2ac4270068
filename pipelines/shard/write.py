"""Writing training shards: every shard is a function of its number, so any worker may write it.

The order of all samples is that of a seeded hash of their uids. Captions and translations are parted by
that hash into buckets on disk, which thus follow each other in the order; a shard reads the one or two
buckets that its range lies in. Memory holds a bucket, whatever the size of the crawl.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import BadInput
from pipelines.lake import buckets, kept_pairs, manifest
from pipelines.lake.ledger import Ledger
from pipelines.lake.shards import INDEX, INDEX_FILE, ShardWriter, image_extension, write_index
from pipelines.progress import Progress
from pipelines.shard.spec import ShardSpec
from pipelines.stage import Outcome, Work
from pipelines.translate.spec import DROPPED_FILE

PREFIX = "shard"
_PAIR_COLUMNS = ("uid", "caption", "language", "shard", "offset", "length", "image_sha256")
PAIRS = pa.schema(
    [(name, pa.int64() if name in ("offset", "length") else pa.string()) for name in _PAIR_COLUMNS]
)
"""The columns of the raw pairs that a sample is made of."""
TEXTS = pa.schema([("uid", pa.string()), ("language", pa.string()), ("text", pa.string())])


@dataclass(frozen=True)
class Plan:
    """What a worker must know to write any shard."""

    folder: Path
    """The run's work folder: `pairs/` and `texts/` hold the buckets, `index/` the finished shards' rows."""
    images: Path
    """Where the tars of the raw pairs are."""
    source: str
    seed: int
    samples_per_shard: int
    bucket_rows: tuple[int, ...]
    """Samples per bucket; the buckets stand in the order of the samples."""

    @property
    def shards(self) -> int:
        return -(-sum(self.bucket_rows) // self.samples_per_shard)

    def index_path(self, shard: int) -> Path:
        return self.folder / "index" / f"{shard:05d}.parquet"


def run(spec: ShardSpec, work: Work, progress: Progress) -> Outcome:
    """Write the tars and `index.parquet`; equal bytes whatever the number of workers."""
    plan = _part(spec, work.folder, progress)
    (work.folder / "index").mkdir(exist_ok=True)
    unfinished = [shard for shard in range(plan.shards) if not plan.index_path(shard).is_file()]
    progress.start("shards", plan.shards, unit="shard", done=plan.shards - len(unfinished))
    if min(spec.workers, len(unfinished)) <= 1:
        for shard in unfinished:
            write_shard(plan, shard)
            progress.advance()
    else:
        # Spawned: a forked copy of a process with Arrow's threads may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(spec.workers, len(unfinished)), mp_context=context) as pool:
            for done in as_completed([pool.submit(write_shard, plan, shard) for shard in unfinished]):
                done.result()
                progress.advance()
    with pq.ParquetWriter(work.out / INDEX_FILE, INDEX) as writer:
        captions: Counter[str] = Counter()
        untranslated = 0
        for shard in range(plan.shards):
            rows = pq.read_table(plan.index_path(shard), schema=INDEX)
            writer.write_table(rows)
            languages = rows["languages"].to_pylist()
            captions.update(itertools.chain.from_iterable(languages))
            untranslated += sum(len(one) == 1 for one in languages)
    samples = sum(plan.bucket_rows)
    return Outcome(
        ledger=Ledger(rows_in=samples, kept=samples),
        metrics={
            "samples": samples,
            "shards": plan.shards,
            "captions": dict(sorted(captions.items())),
            "samples_without_translation": untranslated,
            "bytes": sum(path.stat().st_size for path in work.out.glob("*.tar")),
        },
        rows={INDEX_FILE: samples},
    )


def write_shard(plan: Plan, shard: int) -> None:
    """Write one shard's tar, and then its index rows, which mark it as finished.

    Raises:
        BadInput: an image in the raw pairs' tars is not the one that was downloaded.
    """
    start = shard * plan.samples_per_shard
    with ShardWriter(plan.folder / "out", PREFIX, plan.samples_per_shard, first=shard) as writer:
        for pair, texts in _samples(plan, start, start + plan.samples_per_shard):
            image = _image(plan.images, pair)
            captions = dict(sorted({**texts, pair["language"]: pair["caption"]}.items()))
            document = {"uid": pair["uid"], "source": plan.source, "captions": captions}
            writer.add(pair["uid"], image, image_extension(image), document, captions)
    partial = plan.index_path(shard).with_suffix(".partial")
    write_index(partial, writer.rows)
    partial.replace(plan.index_path(shard))


def _part(spec: ShardSpec, folder: Path, progress: Progress) -> Plan:
    """Part pairs and translations into buckets by their place in the order, unless an earlier run did."""
    pairs = kept_pairs.count(spec.filtered_pairs)
    count = buckets.bucket_count(pairs, spec.parameters.samples_per_shard)
    finished, seed = folder / "parted.json", spec.parameters.seed
    if not finished.is_file():
        progress.start("sorting", pairs, unit="pair")
        rows_per_bucket = np.zeros(count, dtype=np.int64)
        with buckets.BucketWriter(folder / "pairs", PAIRS, count) as writer:
            for rows in kept_pairs.read(spec.raw_pairs, spec.filtered_pairs, _PAIR_COLUMNS):
                keys = buckets.hash_keys(rows["uid"].to_pylist(), seed)
                writer.add(rows.select(PAIRS.names), keys)
                rows_per_bucket += np.bincount(buckets.bucket_of(keys, count), minlength=count)
                progress.advance(len(rows))
        with buckets.BucketWriter(folder / "texts", TEXTS, count) as writer:
            for language, rows in _translations(spec.translations):
                named = rows.append_column("language", pa.array([language] * len(rows), pa.string()))
                writer.add(named.select(TEXTS.names), buckets.hash_keys(rows["uid"].to_pylist(), seed))
        manifest.write_atomically(finished, json.dumps(rows_per_bucket.tolist()).encode())
    return Plan(
        folder=folder,
        images=manifest.folder(spec.raw_pairs),
        source=spec.source,
        seed=seed,
        samples_per_shard=spec.parameters.samples_per_shard,
        bucket_rows=tuple(json.loads(finished.read_text())),
    )


def _translations(table: Path | None) -> Iterator[tuple[str, pa.Table]]:
    """The translations in the table, by language, a row group at a time."""
    if table is None:
        return
    for path in manifest.files(table, ".parquet"):
        if path.name != DROPPED_FILE:
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                yield path.stem, file.read_row_group(group)


def _samples(plan: Plan, start: int, end: int) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """The pairs at places `start` to `end` of the order, each with its translations by language."""
    first = 0
    for number, rows in enumerate(plan.bucket_rows):
        if first < end and start < first + rows:
            pairs = buckets.read_bucket(plan.folder / "pairs", number)
            uids = pairs["uid"].to_numpy()
            order = np.lexsort((uids.astype("S32"), buckets.hash_keys(uids, plan.seed)))
            wanted = order[max(0, start - first) : end - first]
            texts: defaultdict[str, dict[str, str]] = defaultdict(dict)
            for row in buckets.read_bucket(plan.folder / "texts", number).to_pylist():
                texts[row["uid"]][row["language"]] = row["text"]
            for pair in pairs.take(pa.array(wanted)).to_pylist():
                yield pair, texts[pair["uid"]]
        first += rows


def _image(folder: Path, pair: dict[str, Any]) -> bytes:
    """The bytes of a pair's image, from its tar in `folder`."""
    path = folder / pair["shard"]
    # Opened for each image: a shard may draw from more tars than a process may have open.
    with path.open("rb", buffering=0) as tar:
        image = os.pread(tar.fileno(), pair["length"], pair["offset"])
    if hashlib.sha256(image).hexdigest() != pair["image_sha256"]:
        raise BadInput(
            f"the image of pair {pair['uid']} is not the one that was downloaded",
            where=path,
            remedy="run the download stage again: it notices the damage and makes the table anew",
        )
    return image
