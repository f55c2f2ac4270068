"""MMMB (Parrot, section 3): questions with options, and their rotations for circular evaluation.

The file is a TSV with the columns index, image (base64), question, hint, A..D (or to E), answer, category,
split. An image cell of at most 64 characters is the index of another row whose image it is. Every
cell is read as the string that it is: an option "None" or "1" stays a word, and a quotation mark is
a character like any other.
"""

from __future__ import annotations

import base64
import binascii
import csv
import sys
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import BadInput

REQUIRED_COLUMNS = ("index", "image", "question", "A", "B", "answer")
LETTERS = "ABCDE"
POINTER_LENGTH = 64


@dataclass(frozen=True)
class Rotation:
    """An item's options in one order; `answer` is the letter that is right in this order."""

    number: int
    options: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class ChoiceItem:
    """A question about an image, with lettered options."""

    index: str
    image: bytes
    question: str
    hint: str
    options: tuple[str, ...]
    answer: str
    category: str
    split: str

    def rotations(self) -> list[Rotation]:
        """As many orders as there are options, each an option further: the options move, the letters stay.

        An item is right in circular evaluation only if it is right in all of them.
        """
        count = len(self.options)
        gold = LETTERS.index(self.answer)
        return [
            Rotation(turn, self.options[turn:] + self.options[:turn], LETTERS[(gold - turn) % count])
            for turn in range(count)
        ]


def load(path: Path) -> list[ChoiceItem]:
    """The items in the file's order.

    Raises:
        BadInput: the file is not such a table; the message names the row.
    """
    rows = _rows(path)
    images: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if row["index"] in images:
            raise _bad(f"the index {row['index']!r} stands twice", path, number, row)
        images[row["index"]] = row["image"]
    return [_item(path, number, row, images) for number, row in enumerate(rows, start=2)]


def _rows(path: Path) -> list[dict[str, str]]:
    csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    except FileNotFoundError:
        raise BadInput("the benchmark file does not exist", where=path, remedy="check the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(
            f"the benchmark file is not a TSV in UTF-8: {error}", where=path, remedy="fetch the file again"
        ) from None
    if len(lines) < 2:
        raise BadInput("the benchmark file has no items", where=path, remedy="fetch the file again")
    header = lines[0]
    if missing := [column for column in REQUIRED_COLUMNS if column not in header]:
        raise BadInput(
            f"the columns {', '.join(missing)} are missing",
            where=f"{path}, header",
            remedy=f"the layout is MMMB's: index, image, question, hint, A..D, answer, category, split;"
            f" this file has {', '.join(header)}",
        )
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(header):
            raise BadInput(
                f"the row has {len(cells)} cells, the header {len(header)}",
                where=f"{path}, row {number}",
                remedy="cells are separated by one tab and are not quoted; mend this row",
            )
        rows.append(dict(zip(header, cells, strict=True)))
    return rows


def _item(path: Path, number: int, row: dict[str, str], images: dict[str, str]) -> ChoiceItem:
    options = _options(path, number, row)
    if row["answer"] not in LETTERS[: len(options)] or len(row["answer"]) != 1:
        raise _bad(f"the answer {row['answer']!r} is not the letter of an option", path, number, row)
    if not row["question"].strip():
        raise _bad("the question is empty", path, number, row)
    return ChoiceItem(
        index=row["index"],
        image=_image(path, number, row, images),
        question=row["question"],
        hint=row.get("hint", ""),
        options=options,
        answer=row["answer"],
        category=row.get("category", ""),
        split=row.get("split", ""),
    )


def _options(path: Path, number: int, row: dict[str, str]) -> tuple[str, ...]:
    """The row's options: the filled cells, which may not leave one out."""
    cells = [row.get(letter, "") for letter in LETTERS]
    filled = [cell for cell in cells if cell != ""]
    if len(filled) < 2 or cells[: len(filled)] != filled:
        raise _bad("the options are not two or more cells from A on without a gap", path, number, row)
    return tuple(filled)


def _image(path: Path, number: int, row: dict[str, str], images: dict[str, str]) -> bytes:
    cell = row["image"]
    if len(cell) <= POINTER_LENGTH:
        if len(images.get(cell, "")) <= POINTER_LENGTH:
            raise _bad(f"the image cell {cell!r} names no row that has an image", path, number, row)
        cell = images[cell]
    try:
        return base64.b64decode(cell, validate=True)
    except binascii.Error as error:
        raise _bad(f"the image is not base64: {error}", path, number, row) from None


def _bad(what: str, path: Path, number: int, row: dict[str, str]) -> BadInput:
    return BadInput(
        what,
        where=f"{path}, row {number} (index {row['index']!r})",
        remedy="correct the row, or fetch the file again",
    )
