"""Conversations as curation sees them: rows whose caption is all that is said, and their images' hashes.

The scoring stage hashes the images of pairs. Conversations are not scored: they are longer than what a CLIP model
reads, so their images are hashed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipelines.conversations.table import PLACES, Images, files, holds_conversations, spoken
from pipelines.errors import BadInput
from pipelines.score import pairs

__all__ = ["HASHES", "HASHES_SCHEMA", "check_scores", "files", "hashed", "holds_conversations", "read"]

HASHES = "hashes-"
HASHES_SCHEMA = pa.schema([("uid", pa.string()), ("perceptual_hash", pa.uint64()), ("failure", pa.string())])
"""One row per conversation about an image; where the image cannot be decoded, no hash and why."""
_IMAGES_AT_ONCE = 64
_THREADS = 4


def check_scores(raw_pairs: Path, clip_scores: Path | None) -> None:
    """
    Raises:
        BadInput: pairs come without scores, or conversations with some.
    """
    if holds_conversations(raw_pairs) != (clip_scores is None):
        which = ("conversations", "leave it out") if clip_scores else ("pairs", "name the crawl's scores")
        raise BadInput(
            f"the crawl holds {which[0]}: {'these have no scores' if clip_scores else 'these need their scores'}",
            where="clip_scores",
            remedy=f"{which[1]}: `clip_scores` is for crawls of pairs",
        )


def read(path: Path, columns: list[str]) -> pa.Table:
    """Columns of a shard's conversations; `caption` is what is said in them.

    Raises:
        BadInput: the file is damaged.
    """
    try:
        table = pq.read_table(path, columns=["turns" if name == "caption" else name for name in columns])
    except (pa.ArrowInvalid, OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"this parquet file is truncated, damaged or lacks a column: {error}",
            where=path,
            remedy="run the download stage again",
        ) from error
    if "caption" in columns:
        said = pa.array([spoken(turns) for turns in table["turns"].to_pylist()], pa.string())
        table = table.set_column(columns.index("caption"), "caption", said)
    return table


def hashed(raw_pairs: Path, path: Path) -> pa.Table:
    """The perceptual hashes of a shard's images, as HASHES_SCHEMA; an image of several rows is decoded once.

    Raises:
        BadInput: the shard is damaged.
    """
    rows = read(path, list(PLACES)).to_pylist()
    seen = [row for row in rows if row["shard"] is not None]
    decoded: dict[str, pairs.Decoded] = {}
    with Images(raw_pairs) as images, ThreadPoolExecutor(_THREADS) as threads:
        first = _first_of_each(seen)
        while some := list(islice(first, _IMAGES_AT_ONCE)):
            contents = [images.read(row) for row in some]
            for row, one in zip(some, threads.map(_decode, contents), strict=True):
                decoded[row["image_sha256"]] = one
    found = [decoded[row["image_sha256"]] for row in seen]
    return pa.table(
        {
            "uid": [row["uid"] for row in seen],
            "perceptual_hash": [None if one.pixels is None else one.perceptual_hash for one in found],
            "failure": [one.failure for one in found],
        },
        HASHES_SCHEMA,
    )


def _first_of_each(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    known: set[str] = set()
    for row in rows:
        if row["image_sha256"] not in known:
            known.add(row["image_sha256"])
            yield row


def _decode(content: bytes) -> pairs.Decoded:
    return pairs.decode(content, _no_pixels)


def _no_pixels(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.empty(0, dtype=np.uint8)
