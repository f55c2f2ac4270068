"""A tar whose bytes depend on its members alone: no times, no owners, no padding to a record size."""

from __future__ import annotations

import tarfile
from typing import BinaryIO

_BLOCK = tarfile.BLOCKSIZE
_COPY_BYTES = 1 << 20


class DeterministicTar:
    """Writes members one after the other to an open stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._at = 0

    def add_bytes(self, name: str, content: bytes) -> int:
        """Write a member; return the offset of its content in the tar."""
        offset = self._begin(name, len(content))
        self._stream.write(content)
        self._end(offset, len(content))
        return offset

    def add(self, name: str, size: int, source: BinaryIO) -> int:
        """Copy `size` bytes of `source` into a member; return their offset in the tar."""
        offset = self._begin(name, size)
        left = size
        while left:
            chunk = source.read(min(left, _COPY_BYTES))
            if not chunk:
                raise EOFError(f"{name}: {left} bytes are missing")
            self._stream.write(chunk)
            left -= len(chunk)
        self._end(offset, size)
        return offset

    def _begin(self, name: str, size: int) -> int:
        header = tarfile.TarInfo(name)
        header.size, header.mode = size, 0o644
        head = header.tobuf(tarfile.USTAR_FORMAT)
        self._stream.write(head)
        return self._at + len(head)

    def _end(self, offset: int, size: int) -> None:
        padding = -size % _BLOCK
        self._stream.write(b"\0" * padding)
        self._at = offset + size + padding

    def close(self) -> None:
        """Write the end mark. The stream stays open."""
        self._stream.write(b"\0" * (2 * _BLOCK))
