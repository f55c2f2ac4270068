"""A sample of the pairs that a person looks at: kept, nearest to the threshold, and dropped, by reason.

Kept and dropped ones are chosen by uid, which is a hash: a uniform sample, the same in every run. These few images are all that the filter reads.
What was taken down, blocked or called unsafe is not shown: the gallery is published, and so would be what was to leave.
"""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from pipelines.errors import BadInput
from pipelines.filter.rules import Rows
from pipelines.lake import manifest, takedown
from pipelines.lake.positioned import PositionedFile
from pipelines.score.pairs import DECODE_ERRORS

KEPT, BORDERLINE, DROPPED = "kept", "borderline", "dropped"
OF_EACH = 8
MOST_PER_REASON = 3
"""Dropped pairs are shown for each reason in turn, so that a frequent one does not hide the others."""
NEVER_SHOWN = pa.array([takedown.REASON, "blocked_url", "blocked_domain", "blocked_image", "nsfw"])
THUMBNAIL = 112
_MOST_PIXELS = 50_000_000
_GAP, _LINE = 6, 16
_LETTERS = 19
"""So many fit under a thumbnail."""

GALLERY = pa.schema([
    ("kind", pa.string()), ("uid", pa.string()), ("score", pa.float32()), ("reason", pa.string()),
    ("detail", pa.string()), ("caption", pa.string()), ("url", pa.string()), ("thumbnail", pa.binary()),
])  # fmt: skip
"""`thumbnail`: a JPEG; null where the image is not there or cannot be decoded."""
_PLACE = ("shard", "offset", "length")


class Sampler:
    """Keeps the candidates of what was seen so far."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._kept: list[dict[str, Any]] = []
        self._near: list[dict[str, Any]] = []
        self._dropped: dict[str, list[dict[str, Any]]] = {}

    def add(self, rows: Rows, reason: Any, detail: Any) -> None:
        """Take what is needed of a shard."""
        columns = ["uid", "caption", "url", *_PLACE]
        everything = pa.table(
            {
                **{name: rows.raw[name] for name in columns},
                "score": rows.score,
                "reason": reason,
                "detail": detail,
            }
        )
        table = everything.filter(pc.invert(pc.is_in(everything["reason"], NEVER_SHOWN)))
        self._kept = _first(self._kept, table.filter(pc.is_null(table["reason"])), OF_EACH)
        distance = np.abs(table["score"].to_numpy() - np.float32(self._threshold))
        scored = table.append_column("distance", pa.array(distance, from_pandas=True))
        near = scored.filter(pc.is_valid(scored["distance"]))
        self._near = _first(self._near, near, OF_EACH, by="distance")
        for one in pc.unique(table["reason"]).drop_null().to_pylist():
            such = table.filter(pc.fill_null(pc.equal(table["reason"], one), False))
            self._dropped[one] = _first(self._dropped.get(one, []), such, MOST_PER_REASON)

    def chosen(self) -> list[dict[str, Any]]:
        """The rows to be shown, each with its kind."""
        dropped: list[dict[str, Any]] = []
        for turn in range(MOST_PER_REASON):
            dropped += [rows[turn] for _, rows in sorted(self._dropped.items()) if len(rows) > turn]
        kinds = ((KEPT, self._kept), (BORDERLINE, self._near), (DROPPED, dropped[: 2 * OF_EACH]))
        return [{"kind": kind, **row} for kind, rows in kinds for row in rows]


def _first(known: list[dict[str, Any]], table: pa.Table, count: int, by: str = "uid") -> list[dict[str, Any]]:
    """The `count` rows with the lowest uids, or the least of another column."""
    if not table.num_rows:
        return known
    keys = [(name, "ascending") for name in dict.fromkeys((by, "uid"))]
    order = pc.select_k_unstable(table, k=count, sort_keys=keys)
    both = [*known, *table.take(order).to_pylist()]
    return sorted(both, key=lambda row: (row[by], row["uid"]))[:count]


def write(rows: list[dict[str, Any]], raw_pairs: Path, file: Path, picture: Path) -> None:
    """Write the sample with its thumbnails, and all of them as one picture."""
    thumbnails = _thumbnails(rows, raw_pairs)
    columns = {name: [row.get(name) for row in rows] for name in GALLERY.names if name != "thumbnail"}
    pq.write_table(pa.table({**columns, "thumbnail": thumbnails}, GALLERY), file)
    _draw(rows, thumbnails, picture)


def _thumbnails(rows: Sequence[dict[str, Any]], raw_pairs: Path) -> list[bytes | None]:
    names = {Path(entry.path).name: raw_pairs / entry.path for entry in manifest.read(raw_pairs).files}
    found: list[bytes | None] = []
    for row in rows:
        path = names.get(row["shard"])
        found.append(None if path is None else _thumbnail(path, row["offset"], row["length"]))
    return found


def _thumbnail(path: Path, offset: int, length: int) -> bytes | None:
    try:
        with PositionedFile(path, ahead_bytes=length) as tar:
            content = tar.read(offset, length)
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > _MOST_PIXELS:
                return None
            small = image.convert("RGB")
            small.thumbnail((THUMBNAIL, THUMBNAIL))
    except (FileNotFoundError, BadInput, *DECODE_ERRORS):
        # The picture shows an empty frame: the pair itself stands in the ledger whatever its image is.
        return None
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=82)
    return stream.getvalue()


def _draw(rows: Sequence[dict[str, Any]], thumbnails: Sequence[bytes | None], path: Path) -> None:
    """Kinds in lines of eight; under each image its score, and the reason of a dropped one."""
    lines: list[list[int]] = []
    for kind in (KEPT, BORDERLINE, DROPPED):
        places = [place for place, row in enumerate(rows) if row["kind"] == kind]
        lines += [places[start : start + OF_EACH] for start in range(0, len(places), OF_EACH)]
    cell = THUMBNAIL + _GAP
    height = cell + 3 * _LINE
    sheet = Image.new("RGB", (OF_EACH * cell + _GAP, max(1, len(lines)) * (height + _LINE) + _GAP), "white")
    canvas = ImageDraw.Draw(sheet)
    for line, places in enumerate(lines):
        top = _GAP + line * (height + _LINE)
        canvas.text((_GAP, top), rows[places[0]]["kind"].upper(), fill=(40, 40, 40))
        for column, place in enumerate(places):
            left, below = _GAP + column * cell, top + _LINE
            canvas.rectangle((left, below, left + THUMBNAIL, below + THUMBNAIL), outline=(205, 205, 205))
            if (content := thumbnails[place]) is not None:
                with contextlib.closing(Image.open(io.BytesIO(content))) as image:
                    sheet.paste(
                        image,
                        (left + (THUMBNAIL - image.width) // 2, below + (THUMBNAIL - image.height) // 2),
                    )
            score = rows[place]["score"]
            words = "no score" if score is None or score != score else f"{score:.3f}"
            canvas.text((left, below + THUMBNAIL + 1), words, fill=(60, 60, 60))
            reason = (rows[place]["reason"] or "").replace("_", " ")
            for number, words in enumerate(textwrap.wrap(reason, _LETTERS)[:2]):
                canvas.text((left, below + THUMBNAIL + 12 * (number + 1)), words, fill=(170, 60, 40))
    sheet.quantize(256).save(path, "PNG", optimize=True)
