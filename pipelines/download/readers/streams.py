"""Lines and JSON values of large files, one at a time, with the place of each."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ijson

from pipelines.errors import BadInput

MAX_LINE_BYTES = 64 << 20
"""A longer line is passed over: an image in base64 fits, and memory stays bounded."""


class Line(NamedTuple):
    """A line without its end, and where it stands; `content` is None for one that is too long."""

    number: int
    offset: int
    size: int
    content: bytes | None


def lines(path: Path) -> Iterator[Line]:
    """The lines of a file that are not blank; numbers start at 1."""
    with path.open("rb") as stream:
        offset = number = 0
        while line := stream.readline(MAX_LINE_BYTES):
            number += 1
            size = len(line)
            whole = size < MAX_LINE_BYTES or line.endswith(b"\n")
            rest = line if not whole else b"\n"
            while not rest.endswith(b"\n") and (rest := stream.readline(MAX_LINE_BYTES)):
                size += len(rest)
            if not whole or line.strip():
                content = line.rstrip(b"\r\n") if whole else None
                if content is not None and number == 1:
                    content = content.removeprefix(codecs.BOM_UTF8)
                yield Line(number, offset, size, content)
            offset += size


def items(path: Path, prefix: str = "item") -> Iterator[Any]:
    """The values below `prefix` of one JSON document, parsed as a stream.

    Raises:
        BadInput: the file is not JSON, or ends early.
    """
    with path.open("rb") as stream:
        try:
            yield from ijson.items(stream, prefix, use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise BadInput(
                f"this file is not whole JSON: {str(error).splitlines()[0][:200]} (near byte {stream.tell()})",
                where=path,
                remedy="fetch it again, or check `format` in the crawl manifest",
            ) from None


def text(value: object) -> bytes | None:
    """The UTF-8 of a JSON string or number; None for anything else. A lone surrogate becomes bytes that are not UTF-8."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value).encode("utf-8", "surrogatepass")
