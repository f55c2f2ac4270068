"""Readers of source files, one module per format: each yields `Record`s in the source's order, in bounded memory."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from pipelines.crawls import CrawlManifest
from pipelines.download.readers.record import Record

_MODULES = {"csv": "delimited", "tsv": "delimited"}


def records(manifest: CrawlManifest, scratch: Path) -> Iterator[Record]:
    """Every row of the crawl's source, good or bad; the same ones each time.

    Args:
        scratch: a folder for what a reader must sort on disk.

    Raises:
        BadInput: a file is damaged, or is not of the format that the manifest says.
    """
    # Imported by name: each reader brings another library.
    name = _MODULES.get(manifest.format, manifest.format)
    module = importlib.import_module(f"pipelines.download.readers.{name}")
    yield from module.read(manifest, scratch)
