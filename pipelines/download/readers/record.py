"""What a reader yields: one row of a source, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import quote

from pipelines.crawls import CrawlManifest
from pipelines.download.reasons import Failure, Reason


class Place(NamedTuple):
    """Where an image's bytes are.

    web: at the row's URL. none: the row has no image. member: `name` in the manifest's images; where
    `file` is not 0, in that one of its folders, counted from 1.
    span: `offset` and `size` bytes of the manifest's file number `file`. base64: the value of the key `name`
    in the JSON line there. parquet: row `size` of row group `offset` of that file, column `name`.
    """

    kind: Literal["web", "none", "member", "span", "base64", "parquet"]
    name: str = ""
    file: int = 0
    offset: int = 0
    size: int = 0


WEB = Place("web")
NO_IMAGE = Place("none")


@dataclass(frozen=True)
class Record:
    """A row of a source, as it stands there. `text` is a caption, or a conversation as `turns` writes it."""

    where: str
    """File and line, item or row, for a person."""
    url: bytes | None
    """An address on the web; of an image on disk, what it is called by, for its identity."""
    text: bytes | None
    image: Place = WEB
    fault: Failure | None = None


def malformed(where: str, why: str, *, reason: Reason = Reason.ROW_MALFORMED, url: str = "") -> Record:
    """A row that is not what the format says."""
    return Record(where, url.encode("utf-8", "replace"), b"", NO_IMAGE, Failure(reason, f"{where}: {why}"))


def named_image(manifest: CrawlManifest, name: str, url: str = "") -> tuple[str, Place]:
    """Address and place of the image that a source calls `name`; `url` is where the source says it is on the web."""
    images = manifest.images
    if images is None:
        return url or name, WEB
    full = images.prefix + name
    if images.url_prefix and not url:
        url = images.url_prefix + quote(full)
    if not images.files:
        return url, WEB
    return url or own_address(manifest, full), Place("member", full)


def own_address(manifest: CrawlManifest, name: str) -> str:
    """What an image that is not from the web is called by."""
    return f"local://{manifest.crawl}/{name}"
