"""Writing training shards: every shard is a range of the plan, so any worker may write it."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.cores import usable_cores
from pipelines.errors import BadInput
from pipelines.lake import cache, location, manifest, takedown
from pipelines.lake.ledger import Ledger
from pipelines.lake.positioned import PositionedFile
from pipelines.lake.shards import INDEX, INDEX_FILE, ShardWriter, image_extension, shard_name, write_index
from pipelines.model_card.origin import LICENSES, license_of
from pipelines.progress import Progress
from pipelines.shard import plan as planning
from pipelines.shard.plan import Plan
from pipelines.shard.spec import ShardSpec
from pipelines.stage import Outcome, Work

PREFIX = "shard"


SHARDS_EACH = 8
"""Fewest shards for which a further process is started: to start one takes as long as to write some."""


@dataclass(frozen=True)
class Task:
    """What a worker must know to write any shard."""

    plan: Plan
    work: Work
    images: Path
    """Where the tars of the raw pairs are."""
    source: str

    @property
    def index(self) -> Path:
        """The folder of all shards' index rows."""
        return self.work.folder / "index"

    def index_path(self, shard: int) -> Path:
        return self.index / f"{shard:05d}.parquet"

    def is_whole(self, shard: int) -> bool:
        """Whether an earlier run wrote the shard, and its tar was not lost since."""
        return self.index_path(shard).is_file() and self.work.has(self.work.out / shard_name(PREFIX, shard))


def run(spec: ShardSpec, work: Work, progress: Progress) -> Outcome:
    """Write the tars and `index.parquet`; equal bytes whatever the number of workers."""
    plan = planning.make(spec, work.folder, progress)
    task = Task(plan, work, manifest.data_root(spec.raw_pairs), spec.source)
    task.index.mkdir(exist_ok=True)
    work.restore([task.index, work.notes])
    unfinished = [shard for shard in range(plan.shards) if not task.is_whole(shard)]
    progress.start("shards", plan.shards, unit="shard", done=plan.shards - len(unfinished))
    workers = min(spec.workers or usable_cores(), len(unfinished) // (1 if spec.workers else SHARDS_EACH))
    if workers <= 1:
        for shard in unfinished:
            write_shard(task, shard)
            progress.advance()
    else:
        # Spawned: a forked copy of a process with Arrow's threads may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            for done in as_completed([pool.submit(write_shard, task, shard) for shard in unfinished]):
                done.result()
                progress.advance()
    captions: Counter[str] = Counter()
    untranslated = 0
    with pq.ParquetWriter(work.out / INDEX_FILE, INDEX) as writer:
        for shard in range(plan.shards):
            rows = pq.read_table(task.index_path(shard), schema=INDEX)
            writer.write_table(rows)
            languages = rows["languages"].to_pylist()
            captions.update(itertools.chain.from_iterable(languages))
            untranslated += sum(len(one) == 1 for one in languages)
    dropped = {takedown.REASON: plan.taken_down} if plan.taken_down else {}
    tars = sum(path.stat().st_size for path in work.out.glob("*.tar"))
    return Outcome(
        ledger=Ledger(rows_in=plan.samples + plan.taken_down, kept=plan.samples, dropped=dropped),
        metrics={
            "samples": plan.samples,
            "shards": plan.shards,
            "captions": dict(sorted(captions.items())),
            "samples_without_translation": untranslated,
            "bytes": tars + sum(file.bytes for file in work.shipped()),
            LICENSES: {spec.source: license_of(spec.raw_pairs)},
        },
        rows={INDEX_FILE: plan.samples},
    )


def write_shard(task: Task, shard: int) -> None:
    """Write one shard's tar, and then its index rows, which mark it as finished.

    Raises:
        BadInput: an image in the raw pairs' tars is not the one that was downloaded.
    """
    size = task.plan.samples_per_shard
    with ShardWriter(task.work.out, PREFIX, size, first=shard) as writer:
        name = writer.name
        for pair, image in _with_images(task, task.plan.read(shard * size, (shard + 1) * size)):
            texts = {text["language"]: text["text"] for text in pair["texts"]}
            captions = dict(sorted({**texts, pair["language"]: pair["caption"]}.items()))
            document = {"uid": pair["uid"], "source": task.source, "captions": captions}
            writer.add(pair["uid"], image, image_extension(image), document, captions)
    task.work.finish(task.work.out / name)
    partial = task.index_path(shard).with_suffix(".partial")
    write_index(partial, writer.rows)
    partial.replace(task.index_path(shard))
    task.work.keep(task.index_path(shard))


def _with_images(task: Task, pairs: Iterator[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each pair with its image's bytes. From an object store several come at once."""
    if not location.is_remote(task.images):
        for pair in pairs:
            yield pair, _image(task.images, pair)
        return
    while some := list(itertools.islice(pairs, 4 * cache.TRANSFERS)):
        yield from zip(some, cache.in_parallel(lambda pair: _image(task.images, pair), some), strict=True)


def _image(folder: Path, pair: dict[str, Any]) -> bytes:
    """The bytes of a pair's image, from its tar in `folder`."""
    path = folder / pair["shard"]
    # Opened for each image: a shard may draw from more tars than a process may have open.
    with PositionedFile(path, ahead_bytes=0) as tar:
        image = tar.read(pair["offset"], pair["length"])
    if hashlib.sha256(image).hexdigest() != pair["image_sha256"]:
        raise BadInput(
            f"the image of pair {pair['uid']} is not the one that was downloaded",
            where=path,
            remedy="run the download stage again: it notices the damage and makes the table anew",
        )
    return image
