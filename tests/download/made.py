"""Runs a crawl of local data within the test's process: the worker's own code, without the processes."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.crawls import CrawlManifest
from pipelines.download import run, worker
from pipelines.download.addresses import Policy
from pipelines.download.guard import GuardedOpener
from pipelines.download.local_images import LocalImages
from pipelines.download.rows import Row
from pipelines.download.source import Source
from pipelines.download.worker import Settings, ShardTask
from tests.download.conftest import limits


@dataclass(frozen=True)
class Made:
    """The tables of a crawl that was made, and where its tars are."""

    rows: list[dict[str, Any]]
    dropped: list[dict[str, Any]]
    out: Path

    @property
    def reasons(self) -> dict[str, int]:
        return dict(Counter(row["reason"] for row in self.dropped))

    def image(self, row: dict[str, Any]) -> bytes:
        """The image's bytes, from the tar."""
        content = (self.out / row["shard"]).read_bytes()
        return content[row["offset"] : row["offset"] + row["length"]]


def scanned(manifest: CrawlManifest, scratch: Path) -> list[Row]:
    """Every row of the source, as it is before anything is fetched."""
    return list(Source(manifest, scratch).rows())


def made(manifest: CrawlManifest, folder: Path, *, rows_per_shard: int = 100, **parameters: object) -> Made:
    """Make all shards of a crawl whose images are on disk."""
    out, done, scratch = (folder / name for name in ("out", "done", "scratch"))
    for path in (out, done, scratch / "tasks"):
        path.mkdir(parents=True)
    settings = Settings(
        parameters=limits(80, **parameters), policy=Policy(frozenset({80})), language=manifest.language,
        kind=manifest.kind, threads=1, source_files=manifest.files, image_roots=run._image_roots(manifest),
        members=run._listed_members(manifest, scratch), out=out, scratch=scratch, done=done,
        at_work=folder / "at_work",
    )  # fmt: skip
    local = LocalImages(
        settings.image_roots, settings.source_files, settings.members, settings.parameters.max_bytes
    )
    opener = GuardedOpener(settings.parameters, settings.policy)
    ours, theirs = multiprocessing.Pipe()
    for shard in Source(manifest, scratch).shards(rows_per_shard):
        task = ShardTask(shard=shard.number, normalised=shard.normalised)
        shard.write(task.file(scratch))
        worker._make(settings, local, opener, task, theirs)
        while ours.poll():
            ours.recv_bytes()
    tables = [
        [row for path in sorted(out.glob(f"{prefix}-*.parquet")) for row in pq.read_table(path).to_pylist()]
        for prefix in (manifest.kind, "dropped")
    ]
    return Made(tables[0], tables[1], out)
