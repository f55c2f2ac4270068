"""Writes one shard, with tars that do not depend on who answered first.

Images come in the order in which servers answer. They are kept in a scratch file and copied into
the tar in the source's order when the shard is whole, so memory holds a shard's columns only. Rows that
share an image share its bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from pipelines.crawls import Records
from pipelines.download.image import extension
from pipelines.download.readers import turns
from pipelines.download.reasons import Failure
from pipelines.download.source import RejectedRow, ShardRow
from pipelines.lake.tar import DeterministicTar

_IMAGE = [
    ("shard", pa.string()), ("offset", pa.int64()), ("length", pa.int64()),
    ("width", pa.int32()), ("height", pa.int32()), ("image_sha256", pa.string()),
]  # fmt: skip
PAIRS = pa.schema([
    ("uid", pa.string()), ("url", pa.string()), ("caption", pa.string()), ("language", pa.string()), *_IMAGE,
])  # fmt: skip
"""`offset` and `length`: the image's bytes in the tar named by `shard`."""
CONVERSATIONS = pa.schema([
    ("uid", pa.string()), ("url", pa.string()), ("language", pa.string()),
    ("turns", pa.list_(pa.struct([("question", pa.string()), ("answer", pa.string())]))), *_IMAGE,
])  # fmt: skip
"""A conversation about nothing seen has no `shard`, and null in all that is about its image."""
DROPPED = pa.schema([
    ("uid", pa.string()), ("url", pa.string()), ("caption", pa.string()),
    ("reason", pa.string()), ("detail", pa.string()),
])  # fmt: skip


def names(number: int, kind: Records = "pairs") -> tuple[str, str, str]:
    """The names of a shard's tar, rows and dropped rows."""
    return f"shard-{number:05d}.tar", f"{kind}-{number:05d}.parquet", f"dropped-{number:05d}.parquet"


class ShardCounts(BaseModel):
    """What became of a shard's rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kept: int
    dropped: dict[str, int]
    image_bytes: int
    without_image: int = 0
    carried: int = 0
    """Rows kept whose images were taken from the table of an earlier attempt."""


@dataclass(frozen=True)
class _Image:
    """An image in the scratch file."""

    start: int
    length: int
    width: int
    height: int
    sha256: str
    extension: str


_NO_IMAGE = _Image(-1, 0, 0, 0, "", "")


class ShardWriter:
    """Takes each row of a shard once, then is closed."""

    def __init__(
        self,
        folder: Path,
        number: int,
        kind: Records,
        *,
        rows: int,
        rejected: Sequence[RejectedRow],
        language: str,
        progress: Callable[[int], None],
    ) -> None:
        """`rows` is how many must come, besides those `rejected` before; `progress` is called often, with the rows so far."""
        self._folder, self._names, self._kind = folder, names(number, kind), kind
        self._rows, self._rejected, self._language = rows, rejected, language
        self._progress = progress
        self._kept: list[tuple[ShardRow, _Image]] = []
        self._dropped: list[tuple[ShardRow, Failure]] = []
        self._images = (folder / "images").open("w+b")

    def keep(self, rows: Sequence[ShardRow], image: bytes, width: int, height: int) -> None:
        """Take rows that have this one image.

        Raises:
            OSError: it cannot be written.
        """
        start = self._images.tell()
        self._images.write(image)
        digest = hashlib.sha256(image).hexdigest()
        kept = _Image(start, len(image), width, height, digest, extension(image))
        self._kept += [(row, kept) for row in rows]
        self._came()

    def keep_without_image(self, rows: Sequence[ShardRow]) -> None:
        """Take rows that are about nothing seen."""
        self._kept += [(row, _NO_IMAGE) for row in rows]
        self._came()

    def drop(self, rows: Sequence[ShardRow], failure: Failure) -> None:
        """Drop rows for one reason."""
        self._dropped += [(row, failure) for row in rows]
        self._came()

    def close(self) -> ShardCounts:
        """Write the shard's three files.

        Raises:
            OSError: a write failed.
            RuntimeError: rows are missing.
        """
        came = len(self._kept) + len(self._dropped)
        if came != self._rows:
            raise RuntimeError(f"{self._names[0]}: {self._rows} rows went in and {came} came out")
        self._kept.sort(key=lambda entry: entry[0].position)
        rows, image_bytes = self._write_tar()
        _write_parquet(self._folder / self._names[1], PAIRS if self._kind == "pairs" else CONVERSATIONS, rows)
        dropped = [
            (row.position, _dropped(row, failure.reason.value, failure.detail))
            for row, failure in self._dropped
        ]
        dropped += [(row.position, _dropped(row, row.reason, row.detail)) for row in self._rejected]
        listed = [row for _, row in sorted(dropped, key=lambda entry: entry[0])]
        _write_parquet(self._folder / self._names[2], DROPPED, listed)
        return ShardCounts(
            kept=len(rows),
            dropped=dict(sorted(Counter(row["reason"] for row in listed).items())),
            image_bytes=image_bytes,
            without_image=sum(image is _NO_IMAGE for _, image in self._kept),
        )

    def _came(self) -> None:
        self._progress(len(self._kept) + len(self._dropped))

    def _write_tar(self) -> tuple[list[dict[str, Any]], int]:
        rows, image_bytes = [], 0
        written: dict[int, int] = {}
        with (self._folder / self._names[0]).open("wb") as stream:
            tar = DeterministicTar(stream)
            for row, image in self._kept:
                if image is not _NO_IMAGE and image.start not in written:
                    self._images.seek(image.start)
                    name = f"{row.uid}.{image.extension}"
                    written[image.start] = tar.add(name, image.length, self._images)
                    image_bytes += image.length
                text = row.text.encode()
                tar.add(f"{row.uid}.{'txt' if self._kind == 'pairs' else 'json'}", len(text), BytesIO(text))
                rows.append(self._described(row, image, written.get(image.start)))
                self._progress(self._rows)
            tar.close()
            stream.flush()
            os.fsync(stream.fileno())
        self._images.close()
        return rows, image_bytes

    def _described(self, row: ShardRow, image: _Image, offset: int | None) -> dict[str, Any]:
        """The row of PAIRS or CONVERSATIONS; `pa` makes null of what is missing."""
        described: dict[str, Any] = {"uid": row.uid, "url": row.url, "language": self._language}
        if self._kind == "pairs":
            described["caption"] = row.text
        else:
            described["turns"] = turns.load(row.text)
        if image is _NO_IMAGE:
            return described
        return described | {
            "shard": self._names[0], "offset": offset, "length": image.length,
            "width": image.width, "height": image.height, "image_sha256": image.sha256,
        }  # fmt: skip


def _dropped(row: ShardRow | RejectedRow, reason: str, detail: str) -> dict[str, str]:
    return {"uid": row.uid, "url": row.url, "caption": row.text, "reason": reason, "detail": detail}


def _write_parquet(path: Path, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
