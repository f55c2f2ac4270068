"""Reading the raw pairs: rows from parquet in bounded chunks, image files from the tars, both verified."""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.lake.positioned import PositionedFile

COLUMNS = ("uid", "caption", "shard", "offset", "length", "image_sha256")
PREFIX = "pairs-"
_REMEDY = "run the download stage again: it notices the damage and makes the table anew"

DECODE_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error, Image.DecompressionBombError,
)  # fmt: skip
"""What PIL raises for files that are not, or not wholly, images: each of its plugins has its own way."""

_OBJECT = re.compile(r" <[^>]* at 0x[0-9a-f]+>")
"""An object's address, which PIL puts into messages: it would make each run's table another one."""
_LONGEST_DETAIL = 200


@dataclass(frozen=True)
class Pair:
    """One raw pair: its identity, its caption, and where its image file's bytes stand."""

    uid: str
    caption: str
    shard: str
    offset: int
    length: int
    image_sha256: str


def shards(raw_pairs: Path) -> list[Path]:
    """The parquet files of a raw_pairs table, one per shard, in the table's order."""
    return [path for path in manifest.files(raw_pairs, ".parquet") if path.name.startswith(PREFIX)]


def rows(path: Path) -> int:
    """How many pairs a shard has.

    Raises:
        BadInput: the parquet file is missing or damaged.
    """
    with _named(path), pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def chunks(path: Path, size: int) -> Iterator[list[Pair]]:
    """The pairs of a shard, at most `size` at a time, in the file's order.

    Raises:
        BadInput: the parquet file is missing, damaged, or lacks a column.
    """
    with _named(path), pq.ParquetFile(path) as file:
        if missing := set(COLUMNS) - set(file.schema_arrow.names):
            raise BadInput(
                f"the columns {', '.join(sorted(missing))} are missing", where=path, remedy=_REMEDY
            )
        for batch in file.iter_batches(batch_size=size, columns=list(COLUMNS)):
            yield [Pair(**row) for row in batch.to_pylist()]


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise BadInput("this parquet file is missing", where=path, remedy=_REMEDY) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(
            f"this parquet file is truncated or damaged: {error}", where=path, remedy=_REMEDY
        ) from error


class Tar:
    """Positioned reads of image files in one tar, each held against its sha256."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = PositionedFile(path)
        except FileNotFoundError:
            raise BadInput("this tar is missing", where=path, remedy=_REMEDY) from None

    def read(self, pair: Pair) -> bytes:
        """The image file of a pair.

        Raises:
            BadInput: the tar ends before it, or holds other bytes there.
        """
        content = self._file.read(pair.offset, pair.length)
        if len(content) != pair.length:
            raise BadInput(
                f"this tar ends within the image of the pair {pair.uid}", where=self.path, remedy=_REMEDY
            )
        if hashlib.sha256(content).hexdigest() != pair.image_sha256:
            raise BadInput(
                f"this tar is corrupt: the image of the pair {pair.uid} has another sha256",
                where=self.path,
                remedy=_REMEDY,
            )
        return content

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Decoded:
    """An image as the model takes it, with its perceptual hash; or why it cannot be decoded."""

    pixels: np.ndarray[Any, np.dtype[np.uint8]] | None
    perceptual_hash: int = 0
    failure: str = ""


Prepare = Callable[[Image.Image], np.ndarray[Any, np.dtype[np.uint8]]]


def decode(content: bytes, prepare: Prepare) -> Decoded:
    """The image file as `prepare` makes it; a failure is a value, for it concerns one pair only."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return Decoded(prepare(image), perceptual_hash(image))
    except DECODE_ERRORS as error:
        return Decoded(None, failure=_OBJECT.sub("", f"{type(error).__name__}: {error}")[:_LONGEST_DETAIL])


def perceptual_hash(image: Image.Image) -> int:
    """The 64-bit pHash of an image: which low frequencies of its brightness are above their median.

    Images that look alike differ in few bits, whatever their size, format or quality.
    """
    import imagehash  # with SciPy's transforms: slow to import, and filters only read this module's names

    return int.from_bytes(np.packbits(imagehash.phash(image).hash).tobytes(), "big")
