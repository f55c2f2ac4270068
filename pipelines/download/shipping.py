"""Whole shards leave this machine while others are downloaded, where the table lies in an object store."""

from __future__ import annotations

from collections.abc import Set
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from pipelines.download.worker import ShardRecord, record_path
from pipelines.lake.work import Work

_THREADS = 4


class Shipping:
    """Uploads beside the downloads, so that no worker is taken for silent meanwhile; does nothing for a local table.

    A shard's record follows its files: a run on another machine goes on from the shards whose records are in the store.
    The end waits for all uploads, and raises what one of them raised.
    """

    def __init__(self, work: Work, done: Path, kept: Set[Path]) -> None:
        """`done`: where the records of whole shards are. `kept`: what earlier runs kept, which was restored before."""
        self._work, self._done, self._kept = work, done, kept
        self._gone = {file.path: file.sha256 for file in work.shipped()}
        self._threads = ThreadPoolExecutor(_THREADS)
        self._uploads: list[Future[None]] = []

    def has(self, record: ShardRecord) -> bool:
        """Whether an earlier run shipped all files of this shard, as they are in its record."""
        return all(self._gone.get(name) == file.sha256 for name, file in record.files.items())

    def ship(self, record: ShardRecord) -> None:
        """Upload the shard's files and its record, unless earlier runs did, and free the files' disk."""
        if self._work.destination is None:
            return
        if not self.has(record) or record_path(self._done, record.shard) not in self._kept:
            self._uploads.append(self._threads.submit(self._ship, record))

    def _ship(self, record: ShardRecord) -> None:
        paths = [self._work.out / name for name in record.files]
        if self.has(record):
            # The run that shipped them may have been killed before it deleted them.
            for path in paths:
                path.unlink(missing_ok=True)
        else:
            self._work.finish(*paths)
        self._work.keep(record_path(self._done, record.shard))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for upload in self._uploads:
                upload.result()
