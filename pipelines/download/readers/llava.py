"""LLaVA's conversations: a JSON list (or lines) of `{"id", "image", "conversations": [{"from", "value"}]}`.

LLaVA-Instruct, the two files of LLaVA-1.5 and ShareGPT4V are such. A conversation is kept whole. With
`records: pairs`, as for LLaVA-1.5's pretraining, the one answer is a caption.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.crawls import CrawlManifest
from pipelines.download.readers.jsonl import parsed
from pipelines.download.readers.record import NO_IMAGE, Record, malformed, named_image
from pipelines.download.readers.streams import items, lines
from pipelines.download.readers.turns import dump, turns_of
from pipelines.download.reasons import Failure, Reason


def read(manifest: CrawlManifest, scratch: Path) -> Iterator[Record]:
    """One record per conversation."""
    for path in manifest.files:
        for where, entry in _entries(path):
            yield _record(where, entry, manifest) if isinstance(entry, dict) else malformed(where, str(entry))


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Each entry with its place, or what is wrong with it."""
    with path.open("rb") as stream:
        is_list = stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    if is_list:
        for number, entry in enumerate(items(path), start=1):
            yield f"{path.name} item {number}", entry if isinstance(entry, dict) else "no JSON object"
    else:
        for line in lines(path):
            yield f"{path.name} line {line.number}", parsed(line)


def _record(where: str, entry: dict[str, Any], manifest: CrawlManifest) -> Record:
    columns = manifest.columns
    name = entry.get(columns.image)
    try:
        turns, refers = turns_of(entry.get(columns.conversation))
        if isinstance(name, list) and len(name) == 1:
            name = name[0]
        if name is None or name == "":
            if refers or manifest.kind == "pairs":
                wanted = "the text refers to an image" if refers else "a pair needs an image"
                raise Failure(Reason.IMAGE_MISSING, f"{wanted}, and none is named")
        elif not isinstance(name, str):
            raise Failure(Reason.SEVERAL_IMAGES, "more than one image is named")
        if manifest.kind == "pairs" and len(turns) != 1:
            raise Failure(
                Reason.CONVERSATION_MALFORMED, f"{len(turns)} turns; a caption is the answer of one"
            )
    except Failure as failure:
        return malformed(
            where, failure.detail, reason=failure.reason, url=name if isinstance(name, str) else ""
        )
    written = turns[0][1].encode("utf-8", "surrogatepass") if manifest.kind == "pairs" else dump(turns)
    if not isinstance(name, str) or not name:
        return Record(where, b"", written, NO_IMAGE)
    address, image = named_image(manifest, name)
    return Record(where, address.encode("utf-8", "surrogatepass"), written, image)
