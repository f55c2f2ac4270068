"""The conversations of a crawl: rows of its `raw_pairs` table, in its order, with their images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.conversations.llava import Entry
from pipelines.errors import BadInput
from pipelines.lake import kept_pairs, manifest
from pipelines.lake.positioned import PositionedFile, read_exactly

PREFIX = "conversations-"
PLACES = ("uid", "shard", "offset", "length", "image_sha256")
_ROWS_READ_TOGETHER = 512
_REMEDY = "run the download stage again: it notices the damage and makes the table anew"
_TEXTS = ("uid", "language", "turns")


class Conversation(NamedTuple):
    """A conversation with its image file's bytes, or none."""

    uid: str
    language: str
    turns: list[dict[str, str]]
    """Each with `question` and `answer`."""
    image: bytes | None


def holds_conversations(raw_pairs: Path) -> bool:
    """Whether the crawl is one of conversations, not of pairs."""
    return bool(files(raw_pairs))


def files(raw_pairs: Path) -> dict[str, Path]:
    """The parquet files of conversations by their shards' numbers, in the table's order; none in a crawl of pairs."""
    return {
        path.stem.removeprefix(PREFIX): path
        for path in manifest.files(raw_pairs, ".parquet")
        if path.name.startswith(PREFIX)
    }


def spoken(turns: list[dict[str, str]]) -> str:
    """All that is said, a message a line: what rules about texts look at."""
    return "\n".join(said for turn in turns for said in (turn["question"], turn["answer"]))


def conversations(table: Path, filtered: Path | None = None) -> Iterator[Conversation]:
    """Every conversation of a crawl, or those that the filter kept; memory holds some hundred.

    Raises:
        BadInput: the table does not exist, holds no conversations, is damaged, or was filtered in another version.
    """
    with Images(table) as images:
        for row in _rows(table, (*_TEXTS, *PLACES[1:]), filtered):
            image = None if row["shard"] is None else images.read(row)
            yield Conversation(row["uid"], row["language"], row["turns"], image)


def entries(table: Path, filtered: Path | None = None) -> Iterator[Entry]:
    """The conversations in LLaVA's format, named by their uids, without their images; `filtered` as above."""
    for row in _rows(table, _TEXTS, filtered):
        messages = []
        for turn in row["turns"]:
            messages += [
                {"from": "human", "value": turn["question"]},
                {"from": "gpt", "value": turn["answer"]},
            ]
        yield {"id": row["uid"], "conversations": messages}


class Images:
    """The image files of a table's rows; one tar is open at a time, for rows come in the tars' order."""

    def __init__(self, table: Path) -> None:
        self._root = manifest.data_root(table)
        self._tar: PositionedFile | None = None

    def read(self, row: dict[str, Any]) -> bytes:
        """The image of a row of PLACES, held against its sha256.

        Raises:
            BadInput: the tar ends before it, or holds other bytes there.
        """
        if self._tar is None or self._tar.path.name != row["shard"]:
            self.close()
            self._tar = PositionedFile(self._root / row["shard"])
        what = f"the image of the conversation {row['uid']}"
        image = read_exactly(self._tar, row["offset"], row["length"], what=what, remedy=_REMEDY)
        if hashlib.sha256(image).hexdigest() != row["image_sha256"]:
            raise BadInput(f"{what} is not the one that was taken in", where=self._tar.path, remedy=_REMEDY)
        return image

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None

    def __enter__(self) -> Images:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _rows(table: Path, columns: tuple[str, ...], filtered: Path | None) -> Iterator[dict[str, Any]]:
    paths = list(files(table).values())
    if not paths:
        raise BadInput(
            "this crawl holds no conversations",
            where=table,
            remedy="name the raw_pairs table of a crawl whose format is llava, unimm_chat or m3it",
        )
    kept = None if filtered is None else _kept(table, filtered)
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS_READ_TOGETHER, columns=list(columns)):
                    if kept is not None:
                        batch = batch.filter(pa.array(kept_pairs.among(kept, batch["uid"])))
                    yield from batch.to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise BadInput(
                f"this parquet file cannot be read: {error}", where=path, remedy=_REMEDY
            ) from error


def _kept(table: Path, filtered: Path) -> np.ndarray[Any, np.dtype[np.bytes_]]:
    if manifest.read(filtered).inputs.get("raw_pairs") != manifest.read(table).data_version:
        raise BadInput(
            "the filter's result was made from another version of this crawl",
            where=filtered,
            remedy="run the filter stage again",
        )
    return kept_pairs.uids(filtered)
