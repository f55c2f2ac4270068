"""Writes one shard: img2dataset's sample writer, with tars that do not depend on who answered first.

Images come in the order in which servers answer. They are kept in a scratch file and copied into
the tar in the list's order when the shard is whole, so memory holds a shard's columns only.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from pipelines.download.image import extension
from pipelines.download.reasons import parse
from pipelines.download.tar import DeterministicTar
from pipelines.download.url_list import RejectedRow

PAIRS = pa.schema([
    ("uid", pa.string()), ("url", pa.string()), ("caption", pa.string()), ("language", pa.string()),
    ("shard", pa.string()), ("offset", pa.int64()), ("length", pa.int64()),
    ("width", pa.int32()), ("height", pa.int32()), ("image_sha256", pa.string()),
])  # fmt: skip
"""`offset` and `length`: the image's bytes in the tar named by `shard`."""
DROPPED = pa.schema([
    ("uid", pa.string()), ("url", pa.string()), ("caption", pa.string()),
    ("reason", pa.string()), ("detail", pa.string()),
])  # fmt: skip


def names(number: int) -> tuple[str, str, str]:
    """The names of a shard's tar, pairs and dropped rows."""
    return f"shard-{number:05d}.tar", f"pairs-{number:05d}.parquet", f"dropped-{number:05d}.parquet"


class ShardCounts(BaseModel):
    """What became of a shard's rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kept: int
    dropped: dict[str, int]
    image_bytes: int


class ShardWriter:
    """img2dataset's writer interface: built with a shard, given every row once, then closed.

    img2dataset swallows what `write` raises, so an error is kept and raised by `close`.
    """

    def __init__(
        self,
        shard_id: int,
        output_folder: str,
        save_caption: bool,
        oom_shard_count: int,
        schema: pa.Schema,
        encode_format: str,
        *,
        rows: int,
        rejected: list[RejectedRow],
        language: str,
        progress: Callable[[int], None],
        done: Callable[[ShardCounts], None],
    ) -> None:
        """`rows` is how many must come, besides those `rejected` before; `progress` is called often, with the rows so far."""
        self._folder = Path(output_folder)
        self._names = names(shard_id)
        self._rows, self._rejected, self._language = rows, rejected, language
        self._progress, self._done = progress, done
        self._kept: list[tuple[int, dict[str, Any], int, int]] = []
        self._dropped: list[tuple[int, dict[str, Any]]] = []
        self._error: OSError | None = None
        self._images = (self._folder / "images").open("w+b")

    def write(self, img_str: bytes | None, key: str, caption: str | None, meta: dict[str, Any]) -> None:
        """Take one row: an image, or an error message in `meta`."""
        if img_str is None:
            reason, detail = parse(meta["error_message"] or "")
            self._dropped.append(
                (meta["position"], {**_identity(meta), "reason": reason.value, "detail": detail})
            )
        elif self._error is None:
            try:
                start = self._images.tell()
                self._images.write(img_str)
                self._kept.append(
                    (meta["position"], meta | {"extension": extension(img_str)}, start, len(img_str))
                )
            except OSError as error:
                self._error = error
        self._progress(len(self._kept) + len(self._dropped))

    def close(self) -> None:
        """Write the shard's three files.

        Raises:
            OSError: a write failed, now or earlier.
            RuntimeError: img2dataset lost rows.
        """
        if self._error is not None:
            raise self._error
        came = len(self._kept) + len(self._dropped)
        if came != self._rows:
            raise RuntimeError(f"{self._names[0]}: {self._rows} rows went in and {came} came out")
        pairs, image_bytes = self._write_tar()
        _write_parquet(self._folder / self._names[1], PAIRS, pairs)
        for position, *row in self._rejected:
            self._dropped.append((position, dict(zip(DROPPED.names, row, strict=True))))
        dropped = [row for _, row in sorted(self._dropped, key=lambda entry: entry[0])]
        _write_parquet(self._folder / self._names[2], DROPPED, dropped)
        reasons = Counter(row["reason"] for row in dropped)
        self._done(
            ShardCounts(kept=len(pairs), dropped=dict(sorted(reasons.items())), image_bytes=image_bytes)
        )

    def _write_tar(self) -> tuple[list[dict[str, Any]], int]:
        pairs, image_bytes = [], 0
        with (self._folder / self._names[0]).open("wb") as stream:
            tar = DeterministicTar(stream)
            for _, meta, start, length in sorted(self._kept, key=lambda entry: entry[0]):
                self._images.seek(start)
                offset = tar.add(f"{meta['uid']}.{meta['extension']}", length, self._images)
                caption = meta["caption"].encode()
                tar.add(f"{meta['uid']}.txt", len(caption), BytesIO(caption))
                pairs.append({
                    **_identity(meta), "language": self._language, "shard": self._names[0],
                    "offset": offset, "length": length, "width": meta["width"], "height": meta["height"],
                    "image_sha256": meta["sha256"],
                })  # fmt: skip
                image_bytes += length
                self._progress(self._rows)
            tar.close()
            stream.flush()
            os.fsync(stream.fileno())
        self._images.close()
        return pairs, image_bytes


def _identity(meta: dict[str, Any]) -> dict[str, Any]:
    return {name: meta[name] for name in ("uid", "url", "caption")}


def _write_parquet(path: Path, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
