"""Parquet lists: a column of URLs (or image names) and one of captions. LAION's files are such."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.crawls import CrawlManifest
from pipelines.download.readers.record import Record, named_image
from pipelines.errors import BadInput

BATCH_ROWS = 4096


def read(manifest: CrawlManifest, scratch: Path) -> Iterator[Record]:
    """One record per row, a batch at a time in memory."""
    names = [manifest.columns.url, manifest.columns.caption]
    for path in manifest.files:
        check_columns(path, names)
    for path in manifest.files:
        at = 0
        for urls, captions in columns(path, names):
            for url, caption in zip(urls, captions, strict=True):
                at += 1
                where = f"{path.name} row {at}"
                if manifest.images is None or url is None:
                    yield Record(where, url, caption)
                else:
                    address, image = named_image(manifest, url.decode("utf-8", "surrogateescape"))
                    yield Record(where, address.encode("utf-8", "surrogateescape"), caption, image)


def columns(path: Path, names: Sequence[str]) -> Iterator[list[list[bytes | None]]]:
    """The values of text columns, batch by batch, as bytes: text that is not UTF-8 must cost its row, not the run.

    Raises:
        BadInput: the file is damaged.
    """
    with opened(path) as file:
        try:
            for batch in file.iter_batches(BATCH_ROWS, columns=list(names)):
                yield [_as_bytes(batch.column(name)) for name in names]
        except (pa.ArrowInvalid, OSError) as error:
            raise _damaged(path, error) from None


def check_columns(path: Path, names: Sequence[str]) -> None:
    """Raises BadInput unless the file has these columns, as text."""
    with opened(path) as file:
        schema = file.schema_arrow
        for name in names:
            if name not in schema.names:
                raise BadInput(
                    f"the list has no column {name!r}; it has {', '.join(map(repr, schema.names))}",
                    where=path, remedy="set `columns` in the crawl manifest",
                )  # fmt: skip
            if not _is_text(schema.field(name).type):
                raise BadInput(
                    f"the column {name!r} is of type {schema.field(name).type}, not text",
                    where=path, remedy="set `columns` in the crawl manifest to columns of text",
                )  # fmt: skip


def opened(path: Path) -> pq.ParquetFile:
    """Raises BadInput where there is no whole parquet file."""
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise BadInput(
            "the list does not exist", where=path, remedy="correct `files` in the manifest"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> BadInput:
    return BadInput(
        f"the list is not a whole parquet file: {error}",
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
