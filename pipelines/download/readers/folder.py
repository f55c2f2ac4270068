"""Folders of images with their captions beside them: `a/cat.jpg` and `a/cat.txt`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.crawls import CrawlManifest
from pipelines.download.readers.record import Place, Record, malformed, own_address
from pipelines.download.readers.webdataset import IMAGE_ENDINGS
from pipelines.download.reasons import Reason

MAX_CAPTION_BYTES = 1 << 20


def read(manifest: CrawlManifest, scratch: Path) -> Iterator[Record]:
    """One record per image, sorted by name; a caption without an image is a row, too."""
    for number, root in enumerate(manifest.files, start=1):
        for folder, subfolders, names in os.walk(root):
            subfolders.sort()
            yield from _folder(Path(folder), sorted(names), root, number, manifest)


def _folder(
    folder: Path, names: list[str], root: Path, number: int, manifest: CrawlManifest
) -> Iterator[Record]:
    described = set()
    known = frozenset(names)
    for name in names:
        stem, _, ending = name.rpartition(".")
        if ending.lower() not in IMAGE_ENDINGS or name.startswith("."):
            continue
        described.add(f"{stem}.txt")
        path = folder / name
        relative = path.relative_to(root).as_posix()
        address = own_address(manifest, f"{root.name}/{relative}")
        if f"{stem}.txt" not in known:
            yield malformed(relative, f"no {stem}.txt beside it", reason=Reason.CAPTION_EMPTY, url=address)
            continue
        with (folder / f"{stem}.txt").open("rb") as stream:
            caption = stream.read(MAX_CAPTION_BYTES)
        yield Record(
            relative,
            address.encode("utf-8", "surrogateescape"),
            caption.strip(),
            Place("member", relative, number),
        )
    for name in names:
        if name.endswith(".txt") and name not in described and not name.startswith("."):
            relative = (folder / name).relative_to(root).as_posix()
            yield malformed(relative, "no image beside this caption", reason=Reason.IMAGE_MISSING)
