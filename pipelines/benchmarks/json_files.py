"""Published benchmark files in JSON: lines, lists or mappings of objects, and the images that they name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.benchmarks.files import Files
from pipelines.errors import BadInput


@dataclass(frozen=True)
class Image:
    """An image's file content and its digest."""

    content: bytes
    sha256: str


def image(files: Files, path: Path, name: str, row: str | int) -> Image:
    """The image that the row of `path` names.

    Raises:
        BadInput: it is missing.
    """
    content = files.image(name, beside=path, row=f"entry {row}")
    return Image(content, hashlib.sha256(content).hexdigest())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"the file is not UTF-8: {error}", where=path, remedy="fetch the file again") from None


def lines(
    path: Path,
    keys: Sequence[str],
    *,
    unique: str = "",
    allowed: Mapping[str, Sequence[str]] | None = None,
    lists: Sequence[str] = (),
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, with their line numbers; the values of `keys` are texts, or, of `lists`, lists too.

    Raises:
        BadInput: a line is no object with these keys, repeats `unique`, or has a value that is empty or not allowed.
    """
    seen: set[Any] = set()
    # Not splitlines: a line separator within a text ends no line.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(
                f"the line is not JSON: {error}", where=where, remedy="mend it or fetch the file again"
            ) from None
        checked(row, keys, where)
        for key, values in (allowed or {}).items():
            if row[key] not in values:
                raise BadInput(
                    f"{key} is {row[key]!r}", where=where, remedy=f"it must be one of {', '.join(values)}"
                )
        row |= {
            key: _text_of(row, key, where)
            for key in keys
            if not (key in lists and isinstance(row[key], list))
        }
        if unique and row[unique] in seen:
            raise BadInput(
                f"the {unique} {row[unique]!r} stands twice",
                where=where,
                remedy="take one of the two lines out",
            )
        seen.add(row[unique] if unique else number)
        yield number, row


def entries(path: Path, keys: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON list or mapping, with their keys or places; the values of `keys` are texts.

    Raises:
        BadInput: the file is no such list or mapping, repeats a key, or an object lacks one of `keys` or has nothing in it.
    """

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise BadInput(f"the key {twice!r} stands twice", where=path, remedy="take one of the two out")
        return found

    try:
        document = json.loads(_text(path), object_pairs_hook=without_duplicates)
    except json.JSONDecodeError as error:
        raise BadInput(f"the file is not JSON: {error}", where=path, remedy="fetch the file again") from None
    if not isinstance(document, dict | list) or not document:
        raise BadInput("the file holds no entries", where=path, remedy="fetch the file again")
    pairs = (
        document.items() if isinstance(document, dict) else ((str(i), row) for i, row in enumerate(document))
    )
    for name, row in pairs:
        where = f"{path}, entry {name}"
        checked(row, keys, where)
        yield name, row | {key: _text_of(row, key, where) for key in keys}


def words(path: Path | None) -> dict[str, str]:
    """A JSON object whose values are texts; empty where there is no file.

    Raises:
        BadInput: the file is no such object.
    """
    if path is None:
        return {}
    try:
        document = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise BadInput(
            f"the file is not JSON: {error}", where=path, remedy="mend it or fetch it again"
        ) from None
    if not isinstance(document, dict):
        raise BadInput(
            "the file is no JSON object", where=path, remedy='it looks like {"en": "...", "zh": "..."}'
        )
    if wrong := [key for key, value in document.items() if not isinstance(value, str)]:
        raise BadInput(
            "the value is no text", where=f"{path}, entry {wrong[0]}", remedy="put it in quotation marks"
        )
    return document


def checked(row: Any, keys: Sequence[str], where: str) -> dict[str, Any]:
    """The row, if it is an object with these keys."""
    if not isinstance(row, dict) or (missing := [key for key in keys if key not in row]):
        lacking = ", ".join(missing) if isinstance(row, dict) else "an object"
        raise BadInput(
            f"the entry lacks {lacking}",
            where=where,
            remedy=f"an entry has {', '.join(keys)}; fetch the file again",
        )
    return row


def _text_of(row: dict[str, Any], key: str, where: str) -> str:
    """The value as a text: ids and answers are published as numbers, too.

    Raises:
        BadInput: it is null, empty, or no single value.
    """
    value = row[key]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value.strip():
        return value
    raise BadInput(
        f"{key} is {json.dumps(value, ensure_ascii=False)[:80]}, not a text",
        where=where,
        remedy="fill it in between quotation marks, take the entry out, or fetch the file again",
    )
