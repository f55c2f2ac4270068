"""CSV and TSV lists. CSV quotes as RFC 4180 says (Wukong); TSV quotes nothing: a tab is a tab (CC3M, CC12M)."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from pipelines.crawls import CrawlManifest
from pipelines.download.readers.record import Record, malformed, named_image
from pipelines.errors import BadInput

MAX_FIELD_CHARACTERS = 131_072
"""A quote that never closes would swallow the rest of the file; so it costs this much at most."""


def read(manifest: CrawlManifest, scratch: Path) -> Iterator[Record]:
    """One record per line (in CSV: per row, which may hold line breaks in quotes). `.gz` files are unpacked."""
    for path in manifest.files:
        yield from _file(path, manifest)


def _file(path: Path, manifest: CrawlManifest) -> Iterator[Record]:
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    with cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as raw:
        # What is not UTF-8 must cost its row, not the run: its bytes come through.
        stream = io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="\n")
        if manifest.format == "csv":
            rows = csv.reader(stream, strict=True)
        else:
            rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        try:
            header = manifest.header or next(rows, [])
            url_at, caption_at = (
                _column(header, name, path) for name in (manifest.columns.url, manifest.columns.caption)
            )
            while True:
                where = f"{path.name} line {rows.line_num + 1}"
                try:
                    row = next(rows, None)
                except csv.Error as error:
                    yield malformed(where, str(error))
                    continue
                if row is None:
                    return
                if not row:
                    continue
                if len(row) != len(header):
                    yield malformed(where, f"{len(row)} fields, not {len(header)}")
                    continue
                address, image = named_image(manifest, row[url_at])
                yield Record(where, _bytes(address), _bytes(row[caption_at]), image)
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(
                f"the list cannot be read to its end: {error}", where=path, remedy="fetch the file again"
            ) from None


def _column(header: list[str], name: str, path: Path) -> int:
    if name in header:
        return header.index(name)
    raise BadInput(
        f"the list has no column {name!r}; its first line has {', '.join(map(repr, header[:20]))[:300]}",
        where=path,
        remedy="set `columns` in the crawl manifest, and `header` for a file whose first line is data",
    )


def _bytes(field: str) -> bytes:
    return field.encode("utf-8", "surrogateescape")
