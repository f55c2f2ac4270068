"""Webdataset tars: members that share a name up to its first dot are one sample, `0001.jpg` and `0001.txt`.

The caption is the member `columns.caption` (by default `txt`), or `json:KEY` for a key of the sample's JSON.
A key `url` of that JSON is kept as the image's address. A second member of one ending begins a second sample of
the same name: which caption belongs to which image is then anybody's guess, so of such samples the first is taken alone.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.crawls import CrawlManifest
from pipelines.download.readers.record import Place, Record, malformed, own_address
from pipelines.download.readers.streams import text
from pipelines.download.reasons import Reason
from pipelines.errors import BadInput

IMAGE_ENDINGS = frozenset({"jpg", "jpeg", "png", "webp", "gif"})
MAX_TEXT_BYTES = 1 << 20
_DEFAULT_CAPTION = "caption"


def read(manifest: CrawlManifest, scratch: Path) -> Iterator[Record]:
    """One record per sample, in the tars' order. Images stay in the tar until they are needed."""
    for number, path in enumerate(manifest.files):
        before = ""
        for key, members in _samples(path):
            if key == before:
                yield _repeated(key, members, path, manifest)
            else:
                yield _record(key, members, number, path, manifest)
            before = key


_Members = dict[str, tuple[int, int, bytes | None]]
"""Ending of the name -> offset, size, and the content of a text."""


def _samples(path: Path) -> Iterator[tuple[str, _Members]]:
    current, members = "", _Members()
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                # The tar keeps a list of all that it has read.
                tar.members = []  # type: ignore[attr-defined]
                if not member.isreg():
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                key, ending = f"{folder}/{stem}".lstrip("/"), ending.lower()
                if members and (key != current or ending in members):
                    yield current, members
                    members = {}
                current = key
                content = None
                if ending in ("txt", "json", "caption", "text") and member.size <= MAX_TEXT_BYTES:
                    stream = tar.extractfile(member)
                    content = stream.read() if stream is not None else None
                members[ending] = (member.offset_data, member.size, content)
            end = tar.fileobj.tell() if tar.fileobj else 0
    except tarfile.TarError as error:
        raise BadInput(
            f"this is no whole tar: {error}", where=path,
            remedy="fetch it again; a compressed tar must be unpacked to a plain one",
        ) from None  # fmt: skip
    if members:
        last = max(offset + size for offset, size, _ in members.values())
        if last > path.stat().st_size:
            raise BadInput(
                f"this tar ends within the sample {current!r} (byte {end})",
                where=path,
                remedy="fetch it again",
            )
        yield current, members


def _repeated(key: str, members: _Members, path: Path, manifest: CrawlManifest) -> Record:
    start = min(offset for offset, _, _ in members.values())
    return malformed(
        f"{path.name} sample {key} at byte {start}",
        "the sample before has the same name; their members cannot be told apart",
        url=own_address(manifest, f"{path.name}/{key}"),
    )


def _record(key: str, members: _Members, number: int, path: Path, manifest: CrawlManifest) -> Record:
    where = f"{path.name} sample {key}"
    address = own_address(manifest, f"{path.name}/{key}")
    image = next((ending for ending in members if ending in IMAGE_ENDINGS), None)
    if image is None:
        return malformed(
            where, f"no image among {', '.join(members)}", reason=Reason.IMAGE_MISSING, url=address
        )
    described: Any = {}
    if "json" in members:
        try:
            described = json.loads(members["json"][2] or b"{}")
        except (ValueError, RecursionError) as error:
            return malformed(where, f"the JSON is damaged: {error}", url=address)
    wanted = manifest.columns.caption
    if wanted.startswith("json:"):
        caption = text(described.get(wanted.removeprefix("json:"))) if isinstance(described, dict) else None
    else:
        caption = members.get("txt" if wanted == _DEFAULT_CAPTION else wanted, (0, 0, None))[2]
    if isinstance(described, dict) and isinstance(described.get("url"), str) and described["url"]:
        address = described["url"]
    offset, size, _ = members[image]
    return Record(where, text(address), caption, Place("span", "", number, offset, size))
