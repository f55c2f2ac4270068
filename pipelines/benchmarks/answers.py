"""Answers: what a model said to every question, a JSON line each, under a header that says to what.

The header names the format and the fingerprint of the run that asked; a row names the digests of
the prompt and the image that were shown, so that answers to other questions are noticed. `answer` is null where the
question was not asked, and `skipped` says why. Scores are read from the same file under any rules, any number of times.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from pipelines.benchmarks.question import Asked, Key
from pipelines.errors import BadInput
from pipelines.lake import manifest

FILE = "answers.jsonl"
FORMAT = 2
LOST = "an earlier rotation of the item was wrong"


class Answer(TypedDict):
    """One row."""

    benchmark: str
    language: str
    item: str
    rotation: int
    image: str
    """sha256 of the image's bytes."""
    prompt: str
    """First sixteen digits of the prompt's sha256."""
    answer: str | None
    skipped: str
    experts: NotRequired[list[float]]
    """The weight of each expert, of a model that has some."""


OPTIONAL = {"experts"}
REQUIRED = Answer.__annotations__.keys() - OPTIONAL


def row(
    asked: Asked, answer: str | None, skipped: str = "", experts: Sequence[float] | None = None
) -> Answer:
    """The row of one question."""
    made = Answer(
        benchmark=asked.benchmark, language=asked.language, item=asked.item, rotation=asked.rotation,
        image=asked.image_sha256, prompt=asked.prompt_digest, answer=answer, skipped=skipped,
    )  # fmt: skip
    if experts is not None:
        made["experts"] = list(experts)
    return made


def key(answer: Answer) -> Key:
    return answer["benchmark"], answer["language"], answer["item"], answer["rotation"]


def _line(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False) + "\n"


def header(fingerprint: str) -> dict[str, Any]:
    return {"format": FORMAT, "kind": "answers", "fingerprint": fingerprint}


def write(rows: Iterable[Answer], file: Path, *, fingerprint: str = "") -> None:
    """The header, then the rows in their order."""
    with file.open("w", encoding="utf-8") as stream:
        stream.write(_line(header(fingerprint)))
        stream.writelines(_line(one) for one in rows)


def read(table: Path) -> dict[Key, Answer]:
    """The rows of a published answers table by benchmark, language, item and rotation.

    Raises:
        BadInput: the file is missing, torn, of another format, or answers a question twice.
    """
    path = manifest.file(table, FILE)
    return {key(one): one for one in _read(path)}


def _read(path: Path) -> Iterator[Answer]:
    remedy = "run the answer stage again"
    seen: set[Key] = set()
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                document = json.loads(line)
            except json.JSONDecodeError:
                raise BadInput(
                    "this line is not JSON", where=f"{path}, line {number}", remedy=remedy
                ) from None
            if number == 1:
                if document.get("format") != FORMAT:
                    raise BadInput(
                        f"these answers are of format {document.get('format')!r}, not {FORMAT}",
                        where=path,
                        remedy=remedy,
                    )
                continue
            if document.keys() - OPTIONAL != REQUIRED:
                raise BadInput("this line is not an answer", where=f"{path}, line {number}", remedy=remedy)
            if key(document) in seen:
                raise BadInput(
                    f"the question {key(document)} is answered twice",
                    where=f"{path}, line {number}",
                    remedy=remedy,
                )
            seen.add(key(document))
            yield document


class Journal:
    """Answers as they come, safe against a kill: lines are appended and synced batch by batch.

    Opened again, it holds what was written whole; a torn last line is cut off and its question asked again. A journal
    of another run (another fingerprint or format) is begun anew.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.done: dict[Key, Answer] = {}
        lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        if whole and json.loads(whole[0]) == header(fingerprint):
            for line in whole[1:]:
                answer: Answer = json.loads(line)
                self.done[key(answer)] = answer
        else:
            whole = [_line(header(fingerprint)).encode()]
        partial = path.with_suffix(".partial")
        partial.write_bytes(b"".join(whole))
        partial.replace(path)
        self._stream = path.open("a", encoding="utf-8")

    def append(self, rows: Sequence[Answer]) -> None:
        """Write the rows, and wait until the disk has them."""
        self._stream.writelines(_line(one) for one in rows)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.done |= {key(one): one for one in rows}

    def close(self) -> None:
        self._stream.close()
