"""UniMM-Chat: parquet files whose rows hold an image (`image.bytes`) and a conversation written as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipelines.crawls import CrawlManifest
from pipelines.download.readers.parquet import check_columns, opened
from pipelines.download.readers.record import Place, Record, malformed, own_address
from pipelines.download.readers.turns import dump, turns_of
from pipelines.download.reasons import Failure
from pipelines.errors import BadInput


def read(manifest: CrawlManifest, scratch: Path) -> Iterator[Record]:
    """One record per conversation. The images stay where they are until they are needed."""
    columns = manifest.columns
    names = [columns.conversation, columns.image_name]
    for number, path in enumerate(manifest.files):
        check_columns(path, names)
        with opened(path) as file:
            kind = (
                file.schema_arrow.field(columns.image).type
                if columns.image in file.schema_arrow.names
                else None
            )
            if kind is None or not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
                raise BadInput(
                    f"the column {columns.image!r} holds no images: it is {kind or 'missing'}, not bytes with a path",
                    where=path, remedy="set `columns.image` in the crawl manifest",
                )  # fmt: skip
            at = 0
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=names)
                for row, (conversation, name) in enumerate(
                    zip(*(table[column].to_pylist() for column in names), strict=True)
                ):
                    at += 1
                    image = Place("parquet", f"{columns.image}.bytes", number, group, row)
                    yield _record(
                        f"{path.name} row {at}", conversation, name or f"{path.name}/{at}", image, manifest
                    )


def _record(where: str, conversation: str | None, name: str, image: Place, manifest: CrawlManifest) -> Record:
    address = own_address(manifest, name)
    try:
        turns, _ = turns_of(json.loads(conversation or ""))
    except Failure as failure:
        return malformed(where, failure.detail, reason=failure.reason, url=address)
    except (ValueError, RecursionError) as error:
        return malformed(where, f"the conversation is no JSON: {error}", url=address)
    return Record(where, address.encode("utf-8", "surrogatepass"), dump(turns), image)
