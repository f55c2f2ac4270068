"""Questions with lettered options: items, their rotations, prompts, and how their answers are counted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.benchmarks import profiles, tsv
from pipelines.benchmarks.benchmark import Reader, Reading
from pipelines.benchmarks.benchmark import Row as ReadRow
from pipelines.benchmarks.files import Files
from pipelines.benchmarks.prompts import choice_prompt, request
from pipelines.benchmarks.question import LETTERS, Asked

ROTATION_STEP = 1_000_000
"""In files that hold the rotations themselves, a rotation's index is the item's plus a multiple of this."""
COLUMNS = ("question", "A", "B", "answer")


@dataclass(frozen=True)
class Rotation:
    """An item's options in one order; `answer` is the letter that is right in this order."""

    number: int
    options: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class ChoiceItem:
    """A question about an image, with lettered options; `rotations` has one entry where none are asked."""

    index: str
    image: bytes
    question: str
    hint: str
    rotations: tuple[Rotation, ...]
    category: str
    details: Mapping[str, str]

    @property
    def options(self) -> tuple[str, ...]:
        return self.rotations[0].options

    @property
    def answer(self) -> str:
        return self.rotations[0].answer


def rotated(options: tuple[str, ...], answer: str) -> tuple[Rotation, ...]:
    """As many orders as there are options, each an option further: the options move, the letters stay.

    An item is right in circular evaluation only if it is right in all of them.
    """
    count, gold = len(options), LETTERS.index(answer)
    return tuple(
        Rotation(turn, options[turn:] + options[:turn], LETTERS[(gold - turn) % count])
        for turn in range(count)
    )


def load(path: Path, *, circular: bool, kept: Sequence[str] = ()) -> list[ChoiceItem]:
    """The items of a TSV in the file's order, with the columns `kept` as their details.

    Where the file holds the rotations of its items, they are taken as published; else, if `circular`, they are made.

    Raises:
        BadInput: the file is not such a table; the message names the row.
    """
    rows = tsv.read(path, COLUMNS)
    published = _published_rotations(rows)
    items = []
    for row in rows:
        if published and int(row.cells["index"]) >= ROTATION_STEP:
            continue
        options, answer = _options(row)
        if published:
            turned = published[row.cells["index"]]
            turns = tuple(Rotation(number, *_options(one)) for number, one in enumerate(turned))
        else:
            turns = rotated(options, answer) if circular else (Rotation(0, options, answer),)
        items.append(
            ChoiceItem(
                index=row.cells["index"],
                image=row.image,
                question=row.cells["question"],
                hint=row.get("hint"),
                rotations=turns,
                category=row.get("category"),
                details={name: row.get(name, name.replace("_", "-")) for name in kept},
            )
        )
    return items


def _published_rotations(rows: Sequence[tsv.Row]) -> dict[str, list[tsv.Row]]:
    """The rows of each item, its own first; empty where the file holds no rotations.

    It does where some row is one by its index. Items may have such indices themselves: then none is another's rotation.
    """
    if not all(row.cells["index"].isdecimal() for row in rows):
        return {}
    numbers: dict[int, tsv.Row] = {}
    for row in rows:
        before = numbers.setdefault(int(row.cells["index"]), row)
        if before is not row:
            raise row.bad(f"this index is the same number as that of row {before.number}")
    groups = {number: [row] for number, row in numbers.items() if number < ROTATION_STEP}
    if not any(number >= ROTATION_STEP and number % ROTATION_STEP in groups for number in numbers):
        return {}
    for number, row in sorted(numbers.items()):
        if number >= ROTATION_STEP:
            if number % ROTATION_STEP not in groups:
                raise row.bad(
                    f"by its index this is a rotation, as other rows of the file are: of the item "
                    f"{number % ROTATION_STEP}, which is not there"
                )
            groups[number % ROTATION_STEP].append(row)
    return {group[0].cells["index"]: group for group in groups.values()}


def _options(row: tsv.Row) -> tuple[tuple[str, ...], str]:
    """The row's options, the filled cells, which may not leave one out; and the right letter."""
    cells = [row.get(letter) for letter in LETTERS]
    filled = [cell for cell in cells if cell != ""]
    if len(filled) < 2 or cells[: len(filled)] != filled:
        raise row.bad("the options are not two or more cells from A on without a gap")
    answer = row.cells["answer"]
    if len(answer) != 1 or answer not in LETTERS[: len(filled)]:
        raise row.bad(f"the answer {answer!r} is not the letter of an option")
    if not row.cells["question"].strip():
        raise row.bad("the question is empty")
    return tuple(filled), answer


def questions(
    benchmark: str, file: str, *, circular: bool = False, kept: Sequence[str] = ()
) -> Callable[[Files, str], list[Asked]]:
    """How a benchmark of such a TSV is asked: one question per rotation."""

    def ask(files: Files, language: str) -> list[Asked]:
        path = files.path(file.format(language=language))
        letter = request(files, language, beside=path)
        return [
            Asked(
                benchmark=benchmark,
                language=language,
                item=item.index,
                rotation=turn.number,
                prompt=choice_prompt(item.question, turn.options, request=letter, hint=item.hint),
                question=item.question,
                options=turn.options,
                gold=turn.answer,
                category=item.category,
                image=item.image,
                image_sha256=digest,
                details=item.details,
            )
            for item in load(path, circular=circular, kept=kept)
            for digest in [hashlib.sha256(item.image).hexdigest()]
            for turn in item.rotations
        ]

    return ask


def reader(extract: Callable[[str, Sequence[str]], tuple[str | None, str]]) -> Reader:
    """A reader from a profile's extractor: (answer, options) -> (letter or None, how)."""

    def read(asked: Asked, answer: str) -> Reading:
        letter, how = extract(answer, asked.options)
        return Reading(letter, how, letter == asked.gold)

    return read


def readers(*names: str) -> dict[str, Reader]:
    """The readers of these profiles, which read letters alike in every benchmark with options."""
    return {name: reader(profiles.LETTER_EXTRACTORS[name]) for name in names}


def plain(rows: Sequence[ReadRow]) -> dict[str, float]:
    """Whether the question is answered rightly as it is published."""
    asked, reading = rows[0]
    return {"plain": float(asked.rotation == 0 and reading.right), "unresolved": float(reading.said is None)}


def circular(rows: Sequence[ReadRow]) -> dict[str, float]:
    """Right in every rotation; as published; and the share of the answers that choose nothing.

    Rotations that were not asked stand behind a wrong one, so they change no figure.
    """
    asked = [
        (question, reading)
        for question, reading in rows
        if reading.how not in ("skipped", "missing", "refused")
    ]
    return {
        "circular": float(all(reading.right for _, reading in rows)),
        "plain": float(rows[0][0].rotation == 0 and rows[0][1].right),
        "unresolved": sum(reading.said is None for _, reading in asked) / max(1, len(asked)),
    }
