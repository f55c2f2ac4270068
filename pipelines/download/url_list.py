"""Reads parquet URL lists as a stream and cuts them into shards: img2dataset's reader, in bounded memory.

Like `img2dataset.reader.Reader` it cuts lists into runs of `rows_per_shard` rows. Unlike it, it holds
one batch at a time (that one loads each list whole), writes a shard's file only when a worker is about
to take it, and sets aside the rows that cannot be used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.crawls import CrawlManifest
from pipelines.download.duplicates import later_duplicates
from pipelines.download.reasons import Failure, Reason
from pipelines.download.rows import Row, checked
from pipelines.errors import BadInput

BATCH_ROWS = 4096

ShardRow = tuple[int, str, str, str]
"""Position within the shard, uid, URL, caption."""
RejectedRow = tuple[int, str, str, str, str, str]
"""The same, with reason and detail."""


@dataclass(frozen=True)
class Shard:
    """A run of rows of the list: those to download, and those dropped already."""

    number: int
    rows: list[tuple[int, Row]]
    """With positions within the shard."""
    rejected: list[tuple[int, Row, Failure]]

    @property
    def size(self) -> int:
        return len(self.rows) + len(self.rejected)

    @property
    def normalised(self) -> int:
        return sum(row.normalised for _, row in self.rows)

    def write(self, path: Path) -> None:
        """Write the shard as JSON, which `read_shard` reads in the worker."""
        rows = [(at, row.uid, row.url, row.caption) for at, row in self.rows]
        rejected = [
            (at, row.uid, row.url, row.caption, failure.reason.value, failure.detail)
            for at, row, failure in self.rejected
        ]
        path.write_text(json.dumps({"rows": rows, "rejected": rejected}), encoding="ascii")


def read_shard(path: Path) -> tuple[list[ShardRow], list[RejectedRow]]:
    """The rows to download, and those dropped already."""
    document = json.loads(path.read_text(encoding="ascii"))
    return document["rows"], document["rejected"]


class UrlList:
    """The rows of a crawl's URL lists, in their order."""

    def __init__(self, manifest: CrawlManifest) -> None:
        """Check the lists.

        Raises:
            BadInput: a list is no parquet, lacks a column, or all are empty.
        """
        self._files = manifest.files
        self._columns = (manifest.columns.url, manifest.columns.caption)
        self.size = sum(self._checked_size(path) for path in self._files)
        if self.size == 0:
            raise BadInput(
                "the URL list is empty",
                where=self._files[0],
                remedy="name a list with rows in the crawl manifest",
            )

    def _checked_size(self, path: Path) -> int:
        with _opened(path) as file:
            schema = file.schema_arrow
            for name in self._columns:
                if name not in schema.names:
                    raise BadInput(
                        f"the URL list has no column {name!r}; it has {', '.join(map(repr, schema.names))}",
                        where=path, remedy="set `columns` in the crawl manifest",
                    )  # fmt: skip
                if not _is_text(schema.field(name).type):
                    raise BadInput(
                        f"the column {name!r} is of type {schema.field(name).type}, not text",
                        where=path, remedy="set `columns` in the crawl manifest to columns of text",
                    )  # fmt: skip
            return int(file.metadata.num_rows)

    def rows(self) -> Iterator[Row]:
        """Every row, checked for itself.

        Raises:
            BadInput: a list is damaged.
        """
        for path in self._files:
            with _opened(path) as file:
                try:
                    for batch in file.iter_batches(BATCH_ROWS, columns=list(self._columns)):
                        # As bytes: text that is not UTF-8 must cost its row, not the run.
                        urls, captions = (_as_bytes(batch.column(name)) for name in self._columns)
                        yield from map(checked, urls, captions)
                except (pa.ArrowInvalid, OSError) as error:
                    raise _damaged(path, error) from None

    def first_url(self) -> str:
        """The first URL that can be used, or an empty string."""
        return next((row.url for row in self.rows() if row.failure is None), "")

    def shards(self, rows_per_shard: int, scratch: Path) -> Iterator[Shard]:
        """Cut the list into shards, and set aside rows that cannot be used or came before."""
        duplicates = later_duplicates(
            ((at, row.uid) for at, row in enumerate(self.rows()) if row.failure is None), scratch
        )
        shard = Shard(0, [], [])
        for at, row in enumerate(self.rows()):
            failure = row.failure
            if failure is None and _contains(duplicates, at):
                failure = Failure(Reason.DUPLICATE_ROW)
            place = at % rows_per_shard
            if failure is None:
                shard.rows.append((place, row))
            else:
                shard.rejected.append((place, row, failure))
            if shard.size == rows_per_shard:
                yield shard
                shard = Shard(shard.number + 1, [], [])
        if shard.size:
            yield shard


def _contains(ascending: npt.NDArray[np.uint64], value: int) -> bool:
    at = int(np.searchsorted(ascending, np.uint64(value)))
    return at < len(ascending) and int(ascending[at]) == value


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise BadInput(
            "the URL list does not exist", where=path, remedy="correct `files` in the manifest"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> BadInput:
    return BadInput(
        f"the URL list is not a whole parquet file: {error}",
        where=path,
        remedy="fetch or write the file again",
    )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    tests = (
        pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
        pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view,
    )  # fmt: skip
    return any(test(kind) for test in tests)


def _as_bytes(column: pa.Array) -> list[bytes | None]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values: list[bytes | None] = column.cast(pa.large_binary()).to_pylist()
    return values
