"""Visual Genome: `region_descriptions.json`, phrases about boxes by image, and `image_data.json`, the images' URLs.

A phrase describes a region. With `captions_per_image`, those of the largest regions are taken: they say
most about the image as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.crawls import CrawlManifest
from pipelines.download.readers.coco import database
from pipelines.download.readers.record import Record, malformed, named_image
from pipelines.download.readers.streams import items, text


def read(manifest: CrawlManifest, scratch: Path) -> Iterator[Record]:
    """One record per phrase, image by image in the order of the descriptions."""
    descriptions, images = manifest.files
    with database(scratch) as joined:
        joined.execute("CREATE TABLE image (id INTEGER PRIMARY KEY, url TEXT)")
        joined.executemany("INSERT OR REPLACE INTO image VALUES (?, ?)", _images(images))
        for number, entry in enumerate(items(descriptions), start=1):
            where = f"{descriptions.name} item {number}"
            known = entry if isinstance(entry, dict) else {}
            regions, image = known.get("regions"), known.get("id")
            if not isinstance(regions, list) or not isinstance(image, int):
                yield malformed(where, "no `id` and `regions`")
                continue
            row = joined.execute("SELECT url FROM image WHERE id = ?", (image,)).fetchone()
            for region, caption in _chosen(regions, manifest.captions_per_image):
                where = f"{descriptions.name} item {number} region {region + 1}"
                if row is None:
                    yield malformed(where, f"names the image {image}, which {images.name} does not list")
                    continue
                # Archives and folders are laid out as the end of the URL: VG_100K_2/1.jpg.
                name = "/".join(urlsplit(row[0]).path.split("/")[-2:])
                address, place = named_image(manifest, name, row[0])
                yield Record(where, address.encode("utf-8", "surrogatepass"), caption, place)


def _images(path: Path) -> Iterator[tuple[int, str]]:
    for image in items(path):
        known = image if isinstance(image, dict) else {}
        number = known.get("image_id", known.get("id"))
        if isinstance(number, int) and isinstance(known.get("url"), str):
            yield number, known["url"]


def _chosen(regions: list[Any], most: int | None) -> list[tuple[int, bytes | None]]:
    """Place in the list and phrase of the regions that are taken, in their order."""
    captions = [text(region.get("phrase")) if isinstance(region, dict) else None for region in regions]
    if most is None or len(regions) <= most:
        return list(enumerate(captions))
    # Of equal phrases one is enough, where only some are taken.
    first = {caption.strip().lower(): at for at, caption in reversed(list(enumerate(captions))) if caption}
    largest = sorted(first.values(), key=lambda at: (-_area(regions[at]), at))[:most]
    return [(at, captions[at]) for at in sorted(largest)]


def _area(region: dict[str, Any]) -> float:
    width, height = region.get("width"), region.get("height")
    return width * height if isinstance(width, int | float) and isinstance(height, int | float) else 0.0
