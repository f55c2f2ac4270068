"""Published benchmark tables: TSV with images in base64, as VLMEvalKit distributes them.

Every cell is read as the string that it is: an option "None" or "1" stays a word. Two dialects are about: files
without quoting, in which a quotation mark is a character like any other, and files whose cells with line breaks
or marks are quoted and marks in them doubled. A file is read as the second if all of it is well-formed so, else as the first;
where a line inside a quoted cell has a whole row's cells, both readings make sense, and the file is refused.
An image cell of at most 64 characters is the index of another row whose image it is.
"""

from __future__ import annotations

import base64
import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import BadInput

POINTER_LENGTH = 64


@dataclass(frozen=True)
class Row:
    """One row: its cells by column, its image, and where it stands."""

    cells: dict[str, str]
    image: bytes
    path: Path
    number: int

    def get(self, *columns: str) -> str:
        """The first of these columns that the file has; "" if it has none."""
        return next((self.cells[column] for column in columns if column in self.cells), "")

    def bad(self, what: str) -> BadInput:
        """The error to raise for this row."""
        return _bad(what, self.path, self.number, self.cells)


def read(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows in the file's order.

    Raises:
        BadInput: the file is not such a table with these columns; an index is empty or stands twice; an image cell
            points nowhere or is not base64. The message names the row.
    """
    rows = _cells(path, columns)
    images: dict[str, str] = {}
    for number, cells in enumerate(rows, start=2):
        if not cells["index"].strip():
            raise _bad("the index is empty", path, number, cells)
        if cells["index"] in images:
            raise _bad(f"the index {cells['index']!r} stands twice", path, number, cells)
        images[cells["index"]] = cells["image"]
    decoded: dict[str, bytes] = {}
    found = []
    for number, cells in enumerate(rows, start=2):
        cell = cells["image"]
        if len(cell) <= POINTER_LENGTH:
            if len(images.get(cell, "")) <= POINTER_LENGTH:
                raise _bad(f"the image cell {cell!r} names no row that has an image", path, number, cells)
            cell = images[cell]
        if cell not in decoded:
            try:
                decoded[cell] = base64.b64decode(cell, validate=True)
            except ValueError as error:  # what is not ASCII is no binascii.Error
                raise _bad(f"the image is not base64: {error}", path, number, cells) from None
        found.append(Row(cells, decoded[cell], path, number))
    return found


def _cells(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    csv.field_size_limit(sys.maxsize)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInput("the benchmark file does not exist", where=path, remedy="check the path") from None
    except UnicodeDecodeError as error:
        raise BadInput(
            f"the benchmark file is not a TSV in UTF-8: {error}", where=path, remedy="fetch the file again"
        ) from None
    lines = _quoted(text, path) if '"' in text else None
    if lines is None:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE))
    lines = [line for line in lines if line]
    if len(lines) < 2:
        raise BadInput("the benchmark file has no items", where=path, remedy="fetch the file again")
    header = lines[0]
    required = ("index", "image", *columns)
    if missing := [column for column in required if column not in header]:
        raise BadInput(
            f"the columns {', '.join(missing)} are missing",
            where=f"{path}, header",
            remedy=f"the layout needs {', '.join(required)}; this file has {', '.join(header)}",
        )
    if twice := [column for place, column in enumerate(header) if column in header[:place]]:
        raise BadInput(
            f"the column {twice[0]!r} stands twice",
            where=f"{path}, header",
            remedy="take one of the two out, or fetch the file again",
        )
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(header):
            raise BadInput(
                f"the row has {len(cells)} cells, the header {len(header)}",
                where=f"{path}, row {number}",
                remedy="cells are separated by one tab; look for an unbalanced quotation mark or a line break here",
            )
    return [dict(zip(header, cells, strict=True)) for cells in lines[1:]]


def _quoted(text: str, path: Path) -> list[list[str]] | None:
    """The cells if the whole file is well-formed with quoting, else None.

    Raises:
        BadInput: a quoted cell holds what is a row by itself, so that without quoting there would be more rows.
    """
    physical = list(io.StringIO(text, newline=""))
    reader = csv.reader(iter(physical), delimiter="\t", strict=True)
    lines: list[list[str]] = []
    spans: list[tuple[int, int]] = []
    before = 0
    try:
        for line in reader:
            if line:
                lines.append(line)
                spans.append((before, reader.line_num))
            before = reader.line_num
    except csv.Error:
        return None
    if not lines or any(len(line) != len(lines[0]) for line in lines):
        return None
    for number, (first, after) in enumerate(spans, start=1):
        # One line with all tabs is no sign: a row whose last cell has several lines begins with it.
        whole = [place for place in range(first, after) if physical[place].count("\t") == len(lines[0]) - 1]
        if len(whole) > 1:
            raise BadInput(
                f"a quotation mark opens a cell that ends {after - first - 1} line(s) further down, "
                f"though line {whole[0] + 1} is a row by itself",
                where=f"{path}, row {number} (line {first + 1} of the file)",
                remedy="if the mark is only a character, take it away or turn it into another kind of mark, here and where "
                "the next one stands; if the cell is meant to hold these lines, put no tabs into it",
            )
    return lines


def _bad(what: str, path: Path, number: int, cells: dict[str, str]) -> BadInput:
    return BadInput(
        what,
        where=f"{path}, row {number} (index {cells['index']!r})",
        remedy="correct the row, or fetch the file again",
    )
