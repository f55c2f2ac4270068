"""Images on disk: in folders, zip and tar archives, in JSON lines and parquet files.

An archive's members are listed once, in a database that all workers read, so that no process holds a list
of half a million names. Names come from strangers' annotations, and lead nowhere but into the folders named.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import sqlite3
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.download.readers.record import Place
from pipelines.download.reasons import Failure, Reason
from pipelines.errors import BadInput

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


def list_members(roots: list[Path], database: Path) -> None:
    """Write where each member of the archives among `roots` stands.

    Raises:
        BadInput: an archive is damaged, or of a kind that cannot be read at random.
    """
    with sqlite3.connect(database) as listed:
        listed.execute("PRAGMA synchronous = OFF")
        listed.execute(
            "CREATE TABLE member (name TEXT, root INTEGER, offset INTEGER, size INTEGER, packed INTEGER,"
            " method INTEGER, PRIMARY KEY (name, root)) WITHOUT ROWID"
        )
        for number, root in enumerate(roots):
            if not root.is_dir():
                rows = ((name, number, *where) for name, *where in _members(root))
                listed.executemany("INSERT OR REPLACE INTO member VALUES (?, ?, ?, ?, ?, ?)", rows)
    listed.close()


def _members(path: Path) -> Iterator[tuple[str, int, int, int, int]]:
    """Name, offset (of a zip's member: of its header), size, packed size and method of the files in an archive."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if entry.is_dir():
                        continue
                    if entry.compress_type not in (_STORED, _DEFLATED) or entry.flag_bits & 1:
                        raise BadInput(
                            f"{entry.filename!r} is encrypted, or packed in a way that cannot be read", where=path,
                            remedy="unpack the archive, and name the folder in `images.files`",
                        )  # fmt: skip
                    yield (
                        entry.filename,
                        entry.header_offset,
                        entry.file_size,
                        entry.compress_size,
                        entry.compress_type,
                    )
            return
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # The tar keeps a list of all that it has read.
                if member.isreg():
                    yield member.name.removeprefix("./"), member.offset_data, member.size, member.size, -1
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise BadInput(
            f"this is no whole zip or plain tar file: {error}", where=path,
            remedy="fetch it again; unpack what is compressed otherwise, and name the folder",
        ) from None  # fmt: skip


class LocalImages:
    """Reads images by their places. One per worker; not for several threads at once."""

    def __init__(self, roots: list[Path], files: list[Path], members: Path | None, max_bytes: int) -> None:
        """`roots`: the manifest's images; `files`: its source files; `members`: what `list_members` wrote."""
        self._roots, self._files, self._max_bytes = roots, files, max_bytes
        self._listed = (
            None if members is None else sqlite3.connect(f"file:{members}?mode=ro&immutable=1", uri=True)
        )
        self._group: tuple[tuple[int, int, str], pa.ChunkedArray] | None = None

    def read(self, place: Place) -> bytes:
        """The bytes of an image file.

        Raises:
            Failure: there is none, or it cannot be read.
        """
        try:
            match place.kind:
                case "member":
                    return self._member(place)
                case "span":
                    return self._span(self._files[place.file], place.offset, place.size)
                case "base64":
                    return self._base64(place)
                case "parquet":
                    return self._parquet(place)
        except FileNotFoundError as error:
            raise Failure(Reason.IMAGE_MISSING, Path(str(error.filename)).name) from None
        raise AssertionError(place)

    def _member(self, place: Place) -> bytes:
        parts = place.name.replace("\\", "/").split("/")
        if place.name.startswith(("/", "\\")) or ".." in parts or "\0" in place.name:
            raise Failure(Reason.IMAGE_NAME_REFUSED, place.name)
        roots = list(enumerate(self._roots))
        for number, root in roots[place.file - 1 : place.file] if place.file else roots:
            if root.is_dir():
                path = root / place.name
                if path.is_file():
                    if not path.resolve().is_relative_to(root.resolve()):
                        raise Failure(Reason.IMAGE_NAME_REFUSED, f"{place.name} leads out of its folder")
                    return self._span(path, 0, path.stat().st_size)
            elif self._listed is not None:
                query = "SELECT offset, size, packed, method FROM member WHERE name = ? AND root = ?"
                found = self._listed.execute(query, (place.name, number)).fetchone()
                if found is not None:
                    return self._packed(root, *found)
        raise Failure(Reason.IMAGE_MISSING, place.name)

    def _packed(self, path: Path, offset: int, size: int, packed: int, method: int) -> bytes:
        if method < 0:
            return self._span(path, offset, size)
        signature, name_length, extra_length = _LOCAL_HEADER.unpack(
            self._span(path, offset, _LOCAL_HEADER.size)
        )
        if signature != b"PK\x03\x04":
            raise Failure(Reason.IMAGE_UNREADABLE, "the archive is damaged")
        content = self._span(path, offset + _LOCAL_HEADER.size + name_length + extra_length, packed)
        if method == _DEFLATED:
            self._check_size(size)
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                # The size that the archive announces is a promise; what comes is held to it.
                content = unpacker.decompress(content, size + 1)
            except zlib.error:
                raise Failure(Reason.IMAGE_UNREADABLE, "the archive is damaged") from None
        if len(content) != size:
            raise Failure(Reason.IMAGE_UNREADABLE, "the archive is damaged")
        return content

    def _base64(self, place: Place) -> bytes:
        # Four characters stand for three bytes; the rest of the line is text.
        if place.size > 2 * self._max_bytes:
            raise Failure(Reason.TOO_LARGE, f"a line of {place.size} bytes")
        row = json.loads(self._span(self._files[place.file], place.offset, place.size, limited=False))
        encoded = row[place.name]
        encoded = encoded[0] if isinstance(encoded, list) else encoded
        try:
            # Some were written with a data URL's head.
            return base64.b64decode(encoded.partition(";base64,")[2] or encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Failure(Reason.IMAGE_UNREADABLE, f"no base64: {error}") from None

    def _parquet(self, place: Place) -> bytes:
        key = (place.file, place.offset, place.name)
        if self._group is None or self._group[0] != key:
            self._group = None
            column, _, member = place.name.rpartition(".")
            with pq.ParquetFile(self._files[place.file]) as file:
                table = file.read_row_group(place.offset, columns=[place.name])
            self._group = key, pa.chunked_array([chunk.field(member) for chunk in table[column].chunks])
        content: bytes | None = self._group[1][place.size].as_py()
        if not content:
            raise Failure(Reason.IMAGE_MISSING, "the row holds no image")
        self._check_size(len(content))
        return content

    def _span(self, path: Path, offset: int, size: int, *, limited: bool = True) -> bytes:
        if limited:
            self._check_size(size)
        with path.open("rb", buffering=0) as stream:
            content = os.pread(stream.fileno(), size, offset)
        if len(content) != size:
            raise Failure(Reason.IMAGE_UNREADABLE, f"{path.name} ends within it")
        return content

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise Failure(Reason.TOO_LARGE, f"{size} bytes")
