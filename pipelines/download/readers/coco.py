"""COCO's annotations: one JSON file with `images` and `annotations`, which name their image by id.

The two are joined in a small database on disk, since the file has them in any order; a record is one caption,
and the captions of an image follow each other, so that it is fetched and stored once.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.crawls import CrawlManifest
from pipelines.download.readers.record import Record, malformed, named_image
from pipelines.download.readers.streams import items, text
from pipelines.errors import BadInput


def read(manifest: CrawlManifest, scratch: Path) -> Iterator[Record]:
    """One record per caption, in the order of the images' ids; of an image, in the file's order."""
    for path in manifest.files:
        with database(scratch) as joined:
            joined.execute("CREATE TABLE image (id INTEGER PRIMARY KEY, name TEXT, url TEXT)")
            joined.execute("CREATE TABLE caption (number INTEGER PRIMARY KEY, image INTEGER, text BLOB)")
            joined.executemany("INSERT OR REPLACE INTO image VALUES (?, ?, ?)", _images(path))
            joined.executemany("INSERT INTO caption VALUES (?, ?, ?)", _captions(path))
            yield from _joined(joined, path, manifest)


@contextlib.contextmanager
def database(scratch: Path) -> Iterator[sqlite3.Connection]:
    """An empty database in `scratch`, gone afterwards."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        made = sqlite3.connect(Path(folder) / "joined.sqlite", isolation_level=None)
        try:
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -32768"):
                made.execute(f"PRAGMA {pragma}")
            made.execute("BEGIN")
            yield made
        finally:
            made.close()


def _images(path: Path) -> Iterator[tuple[int, str, str]]:
    found = False
    for image in items(path, "images.item"):
        if isinstance(image, dict) and isinstance(image.get("id"), int):
            found = True
            url = image.get("coco_url") or image.get("flickr_url") or ""
            yield image["id"], str(image.get("file_name", "")), str(url)
    if not found:
        raise BadInput(
            "this file has no `images`, so it is none of COCO's annotations", where=path,
            remedy="name a file such as captions_train2017.json, or correct `format`",
        )  # fmt: skip


def _captions(path: Path) -> Iterator[tuple[int, int | None, bytes | None]]:
    for number, annotation in enumerate(items(path, "annotations.item"), start=1):
        known = annotation if isinstance(annotation, dict) else {}
        image: Any = known.get("image_id")
        yield number, image if isinstance(image, int) else None, text(known.get("caption"))


def _joined(joined: sqlite3.Connection, path: Path, manifest: CrawlManifest) -> Iterator[Record]:
    rows = joined.execute(
        "SELECT caption.number, caption.image, caption.text, image.name, image.url,"
        " row_number() OVER (PARTITION BY caption.image ORDER BY caption.number)"
        " FROM caption LEFT JOIN image ON caption.image = image.id ORDER BY caption.image, caption.number"
    )
    most = manifest.captions_per_image
    for number, image, caption, name, url, nth in rows:
        where = f"{path.name} annotation {number}"
        if name is None:
            yield malformed(where, f"names the image {image}, which the file does not list")
        elif most is None or nth <= most:
            address, place = named_image(manifest, name, url)
            yield Record(where, address.encode("utf-8", "surrogatepass"), caption, place)
