"""Answers: what a model said to every question, a JSON line each, under a header that says to what.

The header names the format and the fingerprint of the run that asked; a row names the digests of
the prompt and the image that were shown, so that answers to other questions are noticed. `answer` is null where the
question was not asked, or where a server refused it, and `skipped` says which. Scores are read from the same file
under any rules, any number of times.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from pipelines.benchmarks.question import Asked, Key
from pipelines.errors import BadInput
from pipelines.lake import manifest

FILE = "answers.jsonl"
FORMAT = 2
LOST = "an earlier rotation of the item was wrong"
REFUSED = "refused: "
"""Begins `skipped` of a question that a server will not answer; a fixed word for the reason follows."""
UNANSWERED = "no answer: "
"""Begins `skipped` of a question that got no answer in one run, in a journal alone: the next run asks it again."""
KEEP_SECONDS = 30.0
"""Between two copies of a journal into an object store, which holds whole files only."""


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


TYPES: dict[str, type | tuple[type, ...]] = {
    "benchmark": str, "language": str, "item": str, "rotation": int, "image": str, "prompt": str,
    "answer": (str, type(None)), "skipped": str,
}  # fmt: skip
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


def refusal(answer: Answer) -> str:
    """Why a server refused to answer; "" where it did not."""
    return answer["skipped"].removeprefix(REFUSED) if answer["skipped"].startswith(REFUSED) else ""


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
        BadInput: the file is missing, empty, torn, of another format, or answers a question twice.
    """
    path = manifest.file(table, FILE)
    found = {key(one): one for one in _read(path)}
    if not found:
        raise BadInput("there are no answers in it", where=path, remedy="run the answer stage again")
    return found


def _read(path: Path) -> Iterator[Answer]:
    remedy = "run the answer stage again"
    seen: set[Key] = set()
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            where = f"{path}, line {number}"
            document = _object(line, where, remedy)
            if number == 1:
                if document.get("format") != FORMAT:
                    raise BadInput(
                        f"these answers are of format {document.get('format')!r}, not {FORMAT}",
                        where=path,
                        remedy=remedy,
                    )
                continue
            found = _answer(document, where, remedy, reasons=(REFUSED,))
            if key(found) in seen:
                raise BadInput(f"the question {key(found)} is answered twice", where=where, remedy=remedy)
            seen.add(key(found))
            yield found


def _object(line: bytes, where: str, remedy: str) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except ValueError as error:
        raise BadInput(f"this line is not JSON: {error}", where=where, remedy=remedy) from None
    if not isinstance(document, dict):
        raise BadInput("this line is not an answer", where=where, remedy=remedy)
    return document


def _answer(
    document: dict[str, Any], where: str, remedy: str, *, reasons: tuple[str, ...] = (REFUSED, UNANSWERED)
) -> Answer:
    """`reasons`: how `skipped` may begin where a question that was asked has no answer."""
    if document.keys() - OPTIONAL != REQUIRED:
        raise BadInput("this line is not an answer", where=where, remedy=remedy)
    for name, kind in TYPES.items():
        if not isinstance(document[name], kind) or isinstance(document[name], bool):
            raise BadInput(
                f"{name} is {json.dumps(document[name])[:80]}, which it cannot be", where=where, remedy=remedy
            )
    if document["answer"] is None and not (
        document["skipped"].startswith(reasons) or (document["skipped"] == LOST and document["rotation"])
    ):
        # Else it would be neither answered nor missing.
        raise BadInput(
            f"there is no answer, for no known reason ({document['skipped'][:80]!r})",
            where=where,
            remedy=remedy,
        )
    return cast(Answer, document)


class Journal:
    """Answers as they come, safe against a kill: lines are appended and synced batch by batch.

    Opened again, it holds what was written whole; a torn last line is cut off and its question asked again. A journal
    of another run (another fingerprint or format) is begun anew.
    """

    def __init__(
        self, path: Path, fingerprint: str, *, keep: Callable[[Path], None] = lambda path: None
    ) -> None:
        """`keep` takes the file to where a later run finds it: now and then, and when the journal is closed.

        Raises:
            BadInput: a line that was written whole is damaged.
        """
        self.done: dict[Key, Answer] = {}
        self.failures: dict[Key, list[str]] = defaultdict(list)
        """By question, why it got no answer in each run that failed to get one."""
        lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        remedy = "take the line out, and its question is asked again; or delete the file, and all are"
        if whole and _object(whole[0], f"{path}, line 1", remedy) == header(fingerprint):
            for number, line in enumerate(whole[1:], start=2):
                where = f"{path}, line {number}"
                self._add(_answer(_object(line, where, remedy), where, remedy))
        else:
            whole = [_line(header(fingerprint)).encode()]
        partial = path.with_suffix(".partial")
        partial.write_bytes(b"".join(whole))
        partial.replace(path)
        self._path, self._keep, self._kept, self._unkept = path, keep, time.monotonic(), False
        self._stream = path.open("a", encoding="utf-8")

    def append(self, rows: Sequence[Answer]) -> None:
        """Write the rows, and wait until the disk has them."""
        if not rows:
            return
        self._stream.writelines(_line(one) for one in rows)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        for one in rows:
            self._add(one)
        self._unkept = True
        if time.monotonic() - self._kept >= KEEP_SECONDS:
            self._keep_now()

    def close(self) -> None:
        self._stream.close()
        if self._unkept:
            self._keep_now()

    def _add(self, one: Answer) -> None:
        if one["skipped"].startswith(UNANSWERED):
            self.failures[key(one)].append(one["skipped"].removeprefix(UNANSWERED))
        else:
            self.done[key(one)] = one

    def _keep_now(self) -> None:
        self._keep(self._path)
        self._kept, self._unkept = time.monotonic(), False
