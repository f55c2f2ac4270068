"""The conversations of a crawl: rows of its `raw_pairs` table, in its order, with their images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.conversations.llava import Entry
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.lake.positioned import PositionedFile, read_exactly

PREFIX = "conversations-"
_ROWS_READ_TOGETHER = 512
_REMEDY = "run the download stage again: it notices the damage and makes the table anew"
_TEXTS = ("uid", "language", "turns")
_PLACES = ("shard", "offset", "length", "image_sha256")


class Conversation(NamedTuple):
    """A conversation with its image file's bytes, or none."""

    uid: str
    language: str
    turns: list[dict[str, str]]
    """Each with `question` and `answer`."""
    image: bytes | None


def conversations(table: Path) -> Iterator[Conversation]:
    """Every conversation of a crawl; memory holds some hundred.

    Raises:
        BadInput: the table does not exist, holds no conversations, or is damaged.
    """
    root = manifest.data_root(table)
    tar: PositionedFile | None = None
    try:
        for row in _rows(table, (*_TEXTS, *_PLACES)):
            image = None
            if row["shard"] is not None:
                if tar is None or tar.path.name != row["shard"]:
                    if tar is not None:
                        tar.close()
                    tar = PositionedFile(root / row["shard"])
                image = _image(tar, row)
            yield Conversation(row["uid"], row["language"], row["turns"], image)
    finally:
        if tar is not None:
            tar.close()


def entries(table: Path) -> Iterator[Entry]:
    """The conversations in LLaVA's format, named by their uids, without their images."""
    for row in _rows(table, _TEXTS):
        messages = []
        for turn in row["turns"]:
            messages += [
                {"from": "human", "value": turn["question"]},
                {"from": "gpt", "value": turn["answer"]},
            ]
        yield {"id": row["uid"], "conversations": messages}


def _rows(table: Path, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    paths = [path for path in manifest.files(table, ".parquet") if path.name.startswith(PREFIX)]
    if not paths:
        raise BadInput(
            "this crawl holds no conversations",
            where=table,
            remedy="name the raw_pairs table of a crawl whose format is llava, unimm_chat or m3it",
        )
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS_READ_TOGETHER, columns=list(columns)):
                    yield from batch.to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise BadInput(
                f"this parquet file cannot be read: {error}", where=path, remedy=_REMEDY
            ) from error


def _image(tar: PositionedFile, row: dict[str, Any]) -> bytes:
    what = f"the image of the conversation {row['uid']}"
    image = read_exactly(tar, row["offset"], row["length"], what=what, remedy=_REMEDY)
    if hashlib.sha256(image).hexdigest() != row["image_sha256"]:
        raise BadInput(f"{what} is not the one that was taken in", where=tar.path, remedy=_REMEDY)
    return image
