"""A worker process: takes one shard at a time, from the web or from disk, and puts its files at their names."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import urllib.request
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipelines.crawls import Records
from pipelines.download import web
from pipelines.download.addresses import Policy
from pipelines.download.earlier import EarlierShard
from pipelines.download.guard import GuardedOpener
from pipelines.download.image import image_size
from pipelines.download.local_images import LocalImages
from pipelines.download.reasons import Failure, Reason
from pipelines.download.source import ShardRow, read_shard
from pipelines.download.spec import DownloadParameters
from pipelines.download.suspects import DEATHS, Suspects, named
from pipelines.download.writer import ShardCounts, ShardWriter, names
from pipelines.lake.identity import file_sha256
from pipelines.lake.manifest import write_atomically

_MESSAGE_SECONDS = 0.25
_BEAT_SECONDS = 5.0


class Settings(BaseModel):
    """What every worker of a run is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: DownloadParameters
    policy: Policy
    language: str
    kind: Records = "pairs"
    threads: int
    source_files: list[Path] = []
    """The crawl's files, to which rows refer by number."""
    image_roots: list[Path] = []
    members: Path | None = None
    """What `local_images.list_members` wrote of the archives among `image_roots`."""
    out: Path
    """Where whole shards are put."""
    scratch: Path
    done: Path
    """Where the records of whole shards are put."""
    earlier: Path | None = None
    """The published table of an attempt before, where only what failed in passing is downloaded again."""
    at_work: Path
    """Where workers note which rows they have in hand."""


class ShardTask(BaseModel):
    """One shard to download; the file of its rows lies in `scratch/tasks`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shard: int
    normalised: int

    def file(self, scratch: Path) -> Path:
        """The shard's rows."""
        return scratch / "tasks" / f"{self.shard}.json"


class FileRecord(BaseModel):
    """Size and digest of a finished file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int
    sha256: str


class ShardRecord(BaseModel):
    """A whole shard: written when its files stand at their names, so it is what makes it whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shard: int
    normalised: int
    counts: ShardCounts
    files: dict[str, FileRecord]

    def matches(self, out: Path) -> bool:
        """Whether the files are there and unchanged."""
        return all(
            (out / name).is_file()
            and (out / name).stat().st_size == record.bytes
            and file_sha256(out / name) == record.sha256
            for name, record in self.files.items()
        )


def record_path(done: Path, shard: int) -> Path:
    return done / f"{shard:05d}.json"


def main(connection: Connection, settings_json: str) -> None:
    """Download shards until the pipe ends."""
    # Ctrl-C reaches the whole group; the parent decides, and ends the workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminated)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.simplefilter("ignore")
    settings = Settings.model_validate_json(settings_json)
    opener = GuardedOpener(settings.parameters, settings.policy, settings.scratch / "turns")
    urllib.request.install_opener(opener)
    limit = settings.parameters.max_bytes
    local = LocalImages(settings.image_roots, settings.source_files, settings.members, limit)
    # Standard output belongs to the stage's result; img2dataset prints to it.
    with Path(os.devnull).open("w") as sys.stdout:
        while True:
            try:
                task = ShardTask.model_validate_json(connection.recv_bytes())
            except EOFError:
                return
            try:
                record = _make(settings, local, opener, task, connection)
                answer: dict[str, Any] = {"kind": "done", "record": record.model_dump(mode="json")}
            except OSError as error:
                answer = {"kind": "error", "errno": error.errno or 0, "text": str(error)}
            _send(connection, answer)


_sending = threading.Lock()


def _send(connection: Connection, message: dict[str, Any]) -> None:
    with _sending:
        connection.send_bytes(json.dumps(message).encode())


def _end_with_parent() -> None:
    """A worker that outlived a killed parent would write beside the next run's workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        _terminated()


_in_hand: Suspects | None = None


def _terminated(*_: object) -> None:
    """End at once, by another's will: no row is to blame."""
    if _in_hand is not None:
        _in_hand.acquit()
    os._exit(1)


def _make(
    settings: Settings, local: LocalImages, opener: GuardedOpener, task: ShardTask, connection: Connection
) -> ShardRecord:
    """Make the shard in a folder of its own, then put its files at their names, then its record."""
    global _in_hand
    folder = settings.scratch / f"shard-{task.shard}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows, rejected = read_shard(task.file(settings.scratch))
    reporter = _Reporter(connection)
    writer = ShardWriter(
        folder, task.shard, settings.kind, rows=len(rows), rejected=rejected, language=settings.language,
        progress=reporter,
    )  # fmt: skip
    opener.hosts.beat = reporter.beat
    _in_hand = opener.suspects = suspects = Suspects(settings.at_work, task.shard, settings.threads)
    if suspects.news:
        _send(connection, {"kind": "learned", "text": suspects.news})
    together: list[list[ShardRow]] = []
    alone: list[list[ShardRow]] = []
    earlier = None if settings.earlier is None else EarlierShard(settings.earlier, task.shard, settings.kind)
    for group in _by_image(rows):
        if earlier is not None and group[0].image.kind != "none" and earlier.settle(group, writer):
            continue
        if _name(group) in suspects.killers:
            writer.drop(group, Failure(Reason.WORKER_KILLED, f"{DEATHS} workers ended with it in hand"))
        else:
            (alone if _name(group) in suspects.suspects else together).append(group)
    _take(settings, local, opener, together, writer, suspects, folder, settings.threads)
    for group in alone:
        with suspects.alone(_name(group)):
            _take(settings, local, opener, [group], writer, suspects, folder, threads=1)
    counts = writer.close()
    if earlier is not None:
        earlier.close()
        counts = counts.model_copy(update={"carried": earlier.carried})
    record = _publish(settings, task, folder, counts)
    _in_hand = opener.suspects = None
    suspects.close()
    return record


def _take(
    settings: Settings, local: LocalImages, opener: GuardedOpener, groups: list[list[ShardRow]], writer: ShardWriter,
    suspects: Suspects, folder: Path, threads: int,
) -> None:  # fmt: skip
    """Bring the images of groups of rows, from wherever they are, to the writer."""
    if on_the_web := [group for group in groups if group[0].image.kind == "web"]:
        web.fetch(
            _downloader(),
            opener,
            on_the_web,
            writer,
            settings.parameters,
            suspects,
            threads=threads,
            folder=folder,
        )
    for group in groups:
        if group[0].image.kind == "none":
            writer.keep_without_image(group)
        elif group[0].image.kind != "web":
            with suspects.alone(_name(group)):
                _read(group, local, writer, settings.parameters)


def _name(group: Sequence[ShardRow]) -> bytes:
    """What a group of rows with one image is called in the notes."""
    row = group[0]
    return named(web.requested(row.url) if row.image.kind == "web" else repr(row.image))


@functools.lru_cache(maxsize=1)
def _downloader() -> type:
    """Imported when it is first needed: a crawl of local files needs none."""
    return web.contained_downloader()


def _by_image(rows: list[ShardRow]) -> list[list[ShardRow]]:
    """The rows, those together that have the same image."""
    groups: dict[tuple[object, ...], list[ShardRow]] = {}
    for row in rows:
        # Rows without an image have nothing in common.
        unlike = row.position if row.image.kind == "none" else -1
        address = row.url if row.image.kind == "web" else ""
        groups.setdefault((address, row.image, unlike), []).append(row)
    return list(groups.values())


def _read(
    group: Sequence[ShardRow], local: LocalImages, writer: ShardWriter, limits: DownloadParameters
) -> None:
    try:
        image = local.read(group[0].image)
        width, height = image_size(image, limits)
    except Failure as failure:
        writer.drop(group, failure)
    else:
        writer.keep(group, image, width, height)


def _publish(settings: Settings, task: ShardTask, folder: Path, counts: ShardCounts) -> ShardRecord:
    files = {
        name: FileRecord(bytes=(folder / name).stat().st_size, sha256=file_sha256(folder / name))
        for name in names(task.shard, settings.kind)
    }
    for name in files:
        (folder / name).replace(settings.out / name)
    record = ShardRecord(shard=task.shard, normalised=task.normalised, counts=counts, files=files)
    write_atomically(record_path(settings.done, task.shard), record.model_dump_json().encode())
    shutil.rmtree(folder)
    return record


class _Reporter:
    """Tells the parent how many rows are through: not too often, yet more often than its patience."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last = 0.0
        self._rows = 0

    def __call__(self, rows: int) -> None:
        self._rows = rows
        if time.monotonic() - self._last >= _MESSAGE_SECONDS:
            self._tell()

    def beat(self) -> None:
        """From any thread: this worker waits, and has not fallen silent."""
        if time.monotonic() - self._last >= _BEAT_SECONDS:
            self._tell()

    def _tell(self) -> None:
        self._last = time.monotonic()
        _send(self._connection, {"kind": "rows", "rows": self._rows})
