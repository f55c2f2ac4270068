"""JSON lines: one object per line, with keys for URL (or image name) and caption."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.crawls import CrawlManifest
from pipelines.download.readers.record import Record, malformed, named_image
from pipelines.download.readers.streams import Line, lines, text


def read(manifest: CrawlManifest, scratch: Path) -> Iterator[Record]:
    """One record per line that is not blank."""
    names = manifest.columns
    for path in manifest.files:
        for line in lines(path):
            where = f"{path.name} line {line.number}"
            row = parsed(line)
            if isinstance(row, str):
                yield malformed(where, row)
                continue
            missing = [name for name in (names.url, names.caption) if name not in row]
            if missing:
                yield malformed(where, f"no key {missing[0]!r}; it has {', '.join(map(repr, row))}")
                continue
            url, caption = text(row[names.url]), text(row[names.caption])
            if manifest.images is None or url is None:
                yield Record(where, url, caption)
            else:
                address, image = named_image(manifest, str(row[names.url]))
                yield Record(where, text(address), caption, image)


def parsed(line: Line) -> dict[str, Any] | str:
    """The object in a line, or what is wrong with it."""
    if line.content is None:
        return f"{line.size} bytes in one line"
    try:
        row = json.loads(line.content)
    except (ValueError, RecursionError) as error:
        return f"no JSON: {error}"
    return row if isinstance(row, dict) else "no JSON object"
