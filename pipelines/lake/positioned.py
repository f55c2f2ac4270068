"""Positioned reads of a large file, here or in an object store, without fetching the whole of it."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from pipelines.errors import BadInput
from pipelines.lake import location

AHEAD_BYTES = 8 << 20
"""What one request to an object store brings at least: readers mostly go forward."""


class PositionedFile:
    """An open file that is read by offset and length.

    A local one may be shared by threads and forked processes; a remote one keeps the last range that
    it read, and belongs to one thread. Pickled, it opens its file anew.
    """

    def __init__(self, path: Path, *, ahead_bytes: int = AHEAD_BYTES) -> None:
        """
        Raises:
            FileNotFoundError: there is no such file. A remote one is missed at the first read.
        """
        self.path = path
        self._ahead_bytes = ahead_bytes
        self._descriptor = -1 if location.is_remote(path) else os.open(path, os.O_RDONLY)
        self._start, self._range = 0, b""

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer where the file ends before."""
        if self._descriptor >= 0:
            return os.pread(self._descriptor, length, offset)
        at = offset - self._start
        if at < 0 or at + length > len(self._range):
            self._range = location.read_range(self.path, offset, max(length, self._ahead_bytes))
            self._start, at = offset, 0
        return self._range[at : at + length]

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __getstate__(self) -> tuple[Path, int]:
        return self.path, self._ahead_bytes

    def __setstate__(self, state: tuple[Path, int]) -> None:
        PositionedFile.__init__(self, state[0], ahead_bytes=state[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_exactly(file: PositionedFile, offset: int, length: int, *, what: str, remedy: str) -> bytes:
    """
    Raises:
        BadInput: the file ends before; names the file and `what` was looked for.
    """
    content = file.read(offset, length)
    if len(content) != length:
        raise BadInput(f"this file ends before {what}", where=file.path, remedy=remedy)
    return content
