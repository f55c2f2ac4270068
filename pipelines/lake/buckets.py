"""Rows parted into buckets on disk by a hash of what they are about, so that each can be held in memory.

The way to sort, join and deduplicate tables of any size: equal keys are in one bucket, whatever
file and order they came from.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MOST_BUCKETS = 256
"""Each bucket is an open file with a buffer; larger tables get larger buckets instead."""

Keys = npt.NDArray[np.uint64]


def hash_keys(texts: Iterable[str], seed: int = 0) -> Keys:
    """64 evenly spread bits per text; another seed gives unrelated bits."""
    salt = seed.to_bytes(16, "big", signed=True)
    digests = (
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt).digest()
        for text in texts
    )
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def bucket_count(rows: int, rows_per_bucket: int) -> int:
    return max(1, min(MOST_BUCKETS, math.ceil(rows / rows_per_bucket)))


def bucket_of(keys: Keys, count: int) -> npt.NDArray[np.int64]:
    """The bucket of each key. Buckets are in the order of their keys: all of bucket 0 are below all of bucket 1."""
    high = keys >> np.uint64(32)
    return ((high * np.uint64(count)) >> np.uint64(32)).astype(np.int64)


class BucketWriter:
    """Writes rows into the files of `folder`, one per bucket."""

    def __init__(self, folder: Path, schema: pa.Schema, count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._schema, self._count = schema, count
        self._writers = [
            pa.ipc.new_stream(str(bucket_path(folder, number)), schema) for number in range(count)
        ]

    def add(self, rows: pa.Table, keys: Keys) -> None:
        """Put each row into the bucket of its key."""
        buckets = bucket_of(keys, self._count)
        order = np.argsort(buckets, kind="stable")
        ends = np.searchsorted(buckets[order], np.arange(self._count + 1))
        sorted_rows = rows.cast(self._schema).take(pa.array(order))
        for number in range(self._count):
            start, end = int(ends[number]), int(ends[number + 1])
            if end > start:
                self._writers[number].write_table(sorted_rows.slice(start, end - start).combine_chunks())

    def close(self) -> None:
        for writer in self._writers:
            writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def bucket_path(folder: Path, number: int) -> Path:
    return folder / f"bucket-{number:03d}.arrow"


def read_bucket(folder: Path, number: int) -> pa.Table:
    with pa.OSFile(str(bucket_path(folder, number))) as stream:
        return pa.ipc.open_stream(stream).read_all()
