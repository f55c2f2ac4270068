"""A worker process: img2dataset's Downloader, behind the guard, on one shard at a time.

Only `img2dataset.downloader` is imported. Its package imports webdataset (and with it torch),
albumentations (which asks the network for its version) and a signal handler's module; its logger
imports wandb, which nothing here uses.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import types
import urllib.request
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from pipelines.download.addresses import Policy
from pipelines.download.guard import GuardedOpener
from pipelines.download.image import Inspector
from pipelines.download.spec import DownloadParameters
from pipelines.download.url_list import read_shard
from pipelines.download.writer import ShardCounts, ShardWriter, names
from pipelines.lake.identity import file_sha256
from pipelines.lake.manifest import write_atomically

_MESSAGE_SECONDS = 0.25
COLUMNS = ["position", "uid", "url", "caption"]


class Settings(BaseModel):
    """What every worker of a run is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: DownloadParameters
    policy: Policy
    language: str
    threads: int
    out: Path
    """Where whole shards are put."""
    scratch: Path
    done: Path
    """Where the records of whole shards are put."""


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
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.simplefilter("ignore")
    settings = Settings.model_validate_json(settings_json)
    downloader_type = contained_downloader()
    urllib.request.install_opener(GuardedOpener(settings.parameters, settings.policy))
    # Standard output belongs to the stage's result; img2dataset prints to it.
    with Path(os.devnull).open("w") as sys.stdout:
        while True:
            try:
                task = ShardTask.model_validate_json(connection.recv_bytes())
            except EOFError:
                return
            try:
                record = _download(downloader_type, settings, task, connection)
                answer: dict[str, Any] = {"kind": "done", "record": record.model_dump(mode="json")}
            except OSError as error:
                answer = {"kind": "error", "errno": error.errno or 0, "text": str(error)}
            _send(connection, answer)


def _send(connection: Connection, message: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(message).encode())


def _end_with_parent() -> None:
    """A worker that outlived a killed parent would write beside the next run's workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def contained_downloader() -> type:
    """img2dataset's Downloader, without what its package imports besides."""
    found = importlib.util.find_spec("img2dataset")
    if found is None or found.submodule_search_locations is None:
        raise ModuleNotFoundError("img2dataset is not installed", name="img2dataset")
    package = types.ModuleType("img2dataset")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["img2dataset"] = package
    sys.modules.setdefault("wandb", types.ModuleType("wandb"))
    # Arrow imports pandas for its first array, which takes a second. It leaves a version this old alone.
    pandas = types.ModuleType("pandas")
    pandas.__dict__["__version__"] = "0.0"
    sys.modules.setdefault("pandas", pandas)
    downloader: type = importlib.import_module("img2dataset.downloader").Downloader
    return downloader


def _download(
    downloader_type: type, settings: Settings, task: ShardTask, connection: Connection
) -> ShardRecord:
    """Make the shard in a folder of its own, then put its files at their names, then its record."""
    folder = settings.scratch / f"shard-{task.shard}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows, rejected = read_shard(task.file(settings.scratch))
    table = pa.Table.from_arrays(
        [pa.array(column) for column in zip(*rows, strict=True)] or [pa.array([])] * len(COLUMNS), COLUMNS
    )
    with (
        pa.OSFile(str(folder / "rows.arrow"), "wb") as stream,
        pa.ipc.new_file(stream, table.schema) as writer,
    ):
        writer.write_table(table)
    counts: list[ShardCounts] = []
    sample_writer = functools.partial(
        ShardWriter, rows=len(rows), rejected=rejected, language=settings.language,
        progress=_Reporter(connection), done=counts.append,
    )  # fmt: skip
    downloader = downloader_type(
        sample_writer_class=sample_writer,
        resizer=Inspector(settings.parameters),
        thread_count=settings.threads,
        save_caption=True,
        extract_exif=False,
        output_folder=str(folder),
        column_list=COLUMNS,
        timeout=settings.parameters.timeout_seconds,
        number_sample_per_shard=settings.parameters.rows_per_shard,
        oom_shard_count=5,
        compute_hash="sha256",
        verify_hash_type=None,
        encode_format="jpg",
        retries=0,  # The guard retries, and only what can succeed.
        user_agent_token=None,
        disallowed_header_directives=None,  # The guard looks at them before the body is read.
    )
    downloader.download_shard((task.shard, str(folder / "rows.arrow")))
    return _publish(settings, task, folder, counts[0])


def _publish(settings: Settings, task: ShardTask, folder: Path, counts: ShardCounts) -> ShardRecord:
    files = {
        name: FileRecord(bytes=(folder / name).stat().st_size, sha256=file_sha256(folder / name))
        for name in names(task.shard)
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

    def __call__(self, rows: int) -> None:
        now = time.monotonic()
        if now - self._last >= _MESSAGE_SECONDS:
            self._last = now
            _send(self._connection, {"kind": "rows", "rows": rows})
