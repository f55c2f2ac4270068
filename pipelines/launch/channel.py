"""What pods say while they run, through the storage that holds their tables: any place that fsspec knows.

    <attempt's folder>/<index>-<start>/<number>.jsonl

Each writer has a folder of its own and numbers its files, so nothing is ever overwritten, and a reader that
starts late, or again, reads everything. Unlike a pod's log it survives the node, and it costs the cluster's API
nothing. Results never travel this way: they stand in the manifest.
"""

from __future__ import annotations

import json
import logging
import posixpath
import time
from collections.abc import Callable, Iterator
from typing import Any

import fsspec

from pipelines.launch.spec import Report

log = logging.getLogger(__name__)


def _storage(url: str) -> tuple[Any, str]:
    # Listings are not cached: the other side writes.
    fs, path = fsspec.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    return fs, path.rstrip("/")


class Writer:
    """One pod's side. What could not be written is kept and tried again with the next records."""

    def __init__(self, url: str, index: int) -> None:
        self._fs, folder = _storage(url)
        self._folder = posixpath.join(folder, f"{index:05d}-{time.time_ns():020d}")
        self._number = 0
        self._pending: list[Report] = []
        self.index = index

    def write(self, records: list[Report]) -> bool:
        """Write the records as one file; False if they have to wait."""
        self._pending += [{**record, "index": self.index} for record in records]
        if not self._pending:
            return True
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in self._pending)
        try:
            self._fs.makedirs(self._folder, exist_ok=True)
            path = posixpath.join(self._folder, f"{self._number:08d}.jsonl")
            # On a disk a file is seen before it is whole; a rename is not. Object stores have no such gap.
            if "file" in self._fs.protocol:
                self._fs.pipe_file(path + ".partial", text.encode())
                self._fs.mv(path + ".partial", path)
            else:
                self._fs.pipe_file(path, text.encode())
        except Exception as error:  # noqa: BLE001 - whatever the storage raises: the work itself must go on
            log.warning("what was to be reported has to wait: %s", error)
            return False
        self._number += 1
        self._pending = []
        return True


class Reader:
    """The client's side: every record once, in the order of each writer. What cannot be read now is read later."""

    def __init__(self, url: str) -> None:
        self._fs, self._folder = _storage(url)
        self._next: dict[str, int] = {}
        self.trouble = ""
        """Why the last call could not read all that there is; "" if it could."""

    def read(self) -> Iterator[Report]:
        """The records that have come since the last call."""
        self.trouble = ""
        entries = self._tried(self._fs.ls, self._folder, detail=False)
        for writer in sorted(str(entry).rstrip("/") for entry in entries or []):
            while (content := self._tried(self._fs.cat_file, self._file(writer))) is not None:
                try:
                    records = [json.loads(line) for line in content.decode("utf-8").splitlines()]
                except ValueError as error:
                    self.trouble = f"{self._file(writer)} is no file of records: {error}"
                    records = []
                self._next[writer] = self._next.get(writer, 0) + 1
                yield from records

    def _file(self, writer: str) -> str:
        return posixpath.join(writer, f"{self._next.get(writer, 0):08d}.jsonl")

    def _tried(self, call: Callable[..., Any], path: str, **more: Any) -> Any:
        """What the storage answers; None where there is nothing, or where it does not answer."""
        try:
            return call(path, **more)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:  # noqa: BLE001 - whatever the storage raises: the job itself goes on
            self.trouble = f"{path}: {type(error).__name__}: {error}"
            return None
