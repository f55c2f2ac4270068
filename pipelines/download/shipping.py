"""Whole shards leave this machine while others are downloaded, where the table lies in an object store."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from pipelines.download.worker import ShardRecord
from pipelines.lake.work import Work

_THREADS = 4


class Shipping:
    """Uploads beside the downloads, so that no worker is taken for silent meanwhile; does nothing for a local table.

    Its end waits for all uploads, and raises what one of them raised.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._gone = {file.path: file.sha256 for file in work.shipped()}
        self._threads = ThreadPoolExecutor(_THREADS)
        self._uploads: list[Future[None]] = []

    def has(self, record: ShardRecord) -> bool:
        """Whether an earlier run shipped all files of this shard, as they are in its record."""
        return all(self._gone.get(name) == file.sha256 for name, file in record.files.items())

    def ship(self, record: ShardRecord) -> None:
        """Upload the shard's files, those that are here, and free their disk."""
        if self._work.destination is None:
            return
        for name in record.files:
            path = self._work.out / name
            if path.is_file():
                self._uploads.append(self._threads.submit(self._work.finish, path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for upload in self._uploads:
                upload.result()
