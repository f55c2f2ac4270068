"""A source in an object store, brought to this machine: each file once, by its tag, into the cache of the lake."""

from __future__ import annotations

from pathlib import Path

from pipelines.crawls import CrawlManifest
from pipelines.lake import cache, location

_BESIDE = {"m3it": ("instructions.json",)}
"""By format: what its reader looks for beside a file."""


def beside(manifest: CrawlManifest) -> list[Path]:
    """The files that the reader finds beside those that the manifest names."""
    names = _BESIDE.get(manifest.format, ())
    found = dict.fromkeys(file.with_name(name) for file in manifest.files for name in names)
    return [path for path in found if location.is_file(path)]


def fetched(manifest: CrawlManifest, folder: Path) -> CrawlManifest:
    """The manifest with local files in the place of remote ones, which keep their names and stand in `folder` as in the store.

    Raises:
        BadInput: an object is gone.
    """
    files = [_linked(file, folder) for file in manifest.files]
    for path in beside(manifest):
        _linked(path, folder)
    images = manifest.images
    if images is not None:
        images = images.model_copy(update={"files": [_linked(file, folder) for file in images.files]})
    return manifest.model_copy(update={"files": files, "images": images})


def _linked(path: Path, folder: Path) -> Path:
    if not location.is_remote(path):
        return path
    link = folder.joinpath(*path.parts[1:])
    if not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        # The cache may lie on another disk.
        link.symlink_to(cache.local(path))
    return link
