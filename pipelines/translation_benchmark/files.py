"""Published test sets: fetched or found, held to their digests, and read segment by segment.

WMT's .sgm files look like XML and are not: ampersands stand bare. They are read line by line, as sacrebleu
reads them, so that a score is of the same reference: white space is made one space, and entities stay. In what
is translated, entities become the characters that they stand for.
"""

from __future__ import annotations

import hashlib
import html
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from pipelines.errors import BadInput
from pipelines.lake.identity import file_sha256
from pipelines.translation_benchmark.spec import TestSet

_SECONDS = 60
_MOST_BYTES = 64_000_000
_SEGMENT = re.compile(r"<seg\b[^>]*?\bid=[\"']?(?P<id>[^\"'>\s]+)[^>]*>(?P<text>.*?)</seg>", re.IGNORECASE)
_DOCUMENT = re.compile(r"<doc\b[^>]*?\bdocid=[\"']?(?P<id>[^\"'>]+)[\"'>]", re.IGNORECASE)


class Segments(NamedTuple):
    """The sentences of a file, and what each is called in it; text files have no names."""

    texts: list[str]
    names: list[str]


def load(test_set: TestSet, scratch: Path) -> tuple[list[str], list[str]]:
    """The sources and the references, one to one.

    Raises:
        BadInput: a file is missing, not the pinned one, or malformed; the two do not belong together.
    """
    paths = {
        name: _file(place, pinned, scratch / f"{name}{Path(place).suffix}")
        for name, place, pinned in (
            ("source", test_set.source, test_set.source_sha256),
            ("reference", test_set.reference, test_set.reference_sha256),
        )
    }
    source, reference = segments(paths["source"]), segments(paths["reference"])
    where = f"{test_set.source} and {test_set.reference}"
    if len(source.texts) != len(reference.texts):
        raise BadInput(
            f"the source has {len(source.texts)} segments, the reference {len(reference.texts)}",
            where=where,
            remedy="give the two files of one test set and one direction",
        )
    if source.names and reference.names and source.names != reference.names:
        at = next(number for number, pair in enumerate(zip(*(source.names, reference.names), strict=True)) if pair[0] != pair[1])  # fmt: skip
        raise BadInput(
            f"segment {at + 1} is {source.names[at]!r} in the source and {reference.names[at]!r} in the reference",
            where=where,
            remedy="give the two files of one test set and one direction",
        )
    if empty := [number + 1 for number, text in enumerate(reference.texts) if not text]:
        raise BadInput(f"segment {empty[0]} of the reference is empty", where=where, remedy="fetch the file again")  # fmt: skip
    return [html.unescape(text) for text in source.texts], reference.texts


def segments(path: Path) -> Segments:
    """The segments of an .sgm file, or the lines of any other.

    Raises:
        BadInput: the file is not UTF-8, or has none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInput("the file does not exist", where=path, remedy="check the path") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"the file is not UTF-8: {error}", where=path, remedy="fetch it again") from None
    # Not splitlines: a line separator within a sentence ends no line.
    lines = text.replace("\r\n", "\n").split("\n")
    found = _sgm(lines) if path.suffix.lower() in (".sgm", ".sgml", ".xml") else Segments([_plain(line) for line in lines], [])  # fmt: skip
    while not found.names and found.texts and not found.texts[-1]:
        found.texts.pop()
    if not found.texts:
        raise BadInput("there are no segments in it", where=path, remedy="give an .sgm file, or text with a segment per line")  # fmt: skip
    return found


def _sgm(lines: list[str]) -> Segments:
    found = Segments([], [])
    document = ""
    for line in lines:
        if match := _DOCUMENT.search(line):
            document = match["id"]
        for match in _SEGMENT.finditer(line):
            found.texts.append(_plain(match["text"]))
            found.names.append(f"{document}:{match['id']}")
    return found


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip())


def _file(place: str, pinned: str | None, target: Path) -> Path:
    path = Path(place)
    if "://" in place:
        path = target
        path.write_bytes(_fetched(place))
    elif not path.is_file():
        raise BadInput(
            "the file does not exist", where=path, remedy="fetch it, or give its address and digest"
        )
    found = file_sha256(path)
    if pinned is not None and found != pinned:
        raise BadInput(
            f"the file has the digest {found}, but {pinned} is pinned",
            where=place,
            remedy="fetch it again; correct the digest only if another version is wanted, and say so beside scores",
        )
    return path


def _fetched(address: str) -> bytes:
    # The address is http(s), by the spec, and stands in the recipe: whoever runs it wrote it.
    request = urllib.request.Request(address, headers={"User-Agent": "multilingual-vlm-factory"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:  # noqa: S310
            content: bytes = response.read(_MOST_BYTES + 1)
    except (urllib.error.URLError, OSError) as error:
        raise BadInput(
            f"the file cannot be fetched: {error}", where=address, remedy="try again, or give a local path"
        ) from None
    if len(content) > _MOST_BYTES:
        raise BadInput("the file is far too long for a test set", where=address, remedy="check the address")
    return content


def digest(texts: list[str]) -> str:
    """A digest of what was scored, whichever file it came from."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
