"""Finds the rows that end workers, so that they are dropped and the crawl goes on.

A decoder that crashes takes its whole process along, and a body that fills the memory has it killed; nothing is left to say which row
it was. So a worker notes, before it touches a row, which one it is, in a file that is mapped into memory: a note costs no system
call, and it is there after SIGKILL. The worker that takes the shard next reads the notes. What was in hand, decoded or fetched,
is under suspicion and done last, one row at a time. A row that was alone in hand, or in the decoder, when two workers ended is a killer.

The notes lie in the work folder on this machine: a row that ends the whole run, as when the memory is full, is found by the runs after it here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipelines.lake.manifest import write_atomically

DEATHS = 2
"""How many workers a row ends before it is dropped."""
MOST_KILLERS = 20
"""Of one shard; where more rows end workers, it is the machine that does."""
_NAME_BYTES = 8
_NOBODY = bytes(_NAME_BYTES)


def named(text: str) -> bytes:
    """The short name by which a URL, or the place of an image, is noted."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_NAME_BYTES).digest()


class _Known(BaseModel):
    """What is known of a shard after some deaths; names in hex."""

    model_config = ConfigDict(extra="forbid")

    deaths: dict[str, int] = {}
    """Workers that ended with the row alone in hand."""
    suspects: list[str] = []
    more_news: bool = True
    """Whether new suspects are news: not again before one of them was found to be a killer."""


class Suspects:
    """The notes of the worker that has a shard in hand, and what was learned from those before it."""

    def __init__(self, folder: Path, shard: int, threads: int) -> None:
        """Read what the last worker left, and begin notes of `threads` threads besides the one that decodes."""
        folder.mkdir(parents=True, exist_ok=True)
        self._known_path, self._notes_path = folder / f"{shard}.json", folder / f"{shard}.notes"
        known = _read(self._known_path)
        descriptor = os.open(self._notes_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            left = os.read(descriptor, os.fstat(descriptor).st_size)
            os.ftruncate(descriptor, 0)
            os.ftruncate(descriptor, _NAME_BYTES * (threads + 1))
            self._notes = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)
        self._free = deque(range(1, threads + 1))
        self.news = _learned(known, left)
        """What was found out just now, in words; empty where it is nothing that makes another try worthwhile."""
        if left.strip(b"\0"):
            write_atomically(self._known_path, known.model_dump_json().encode())
        self.killers = frozenset(
            bytes.fromhex(name) for name, deaths in known.deaths.items() if deaths >= DEATHS
        )
        """Rows to drop."""
        self.suspects = frozenset(map(bytes.fromhex, known.suspects)) - self.killers
        """Rows to do last, each alone."""

    @contextlib.contextmanager
    def alone(self, name: bytes) -> Iterator[None]:
        """Note that this row, and no other, is what would end the process now."""
        before = self._notes[:_NAME_BYTES]
        self._notes[:_NAME_BYTES] = name
        try:
            yield
        finally:
            self._notes[:_NAME_BYTES] = before

    @contextlib.contextmanager
    def beside(self, name: bytes) -> Iterator[None]:
        """Note that this row is in hand, beside others."""
        try:
            at = self._free.popleft()
        except IndexError:
            # More threads than were announced: what is not noted is not found.
            yield
            return
        place = slice(at * _NAME_BYTES, (at + 1) * _NAME_BYTES)
        self._notes[place] = name
        try:
            yield
        finally:
            self._notes[place] = _NOBODY
            self._free.append(at)

    def acquit(self) -> None:
        """The process is about to end for a reason of its own: nothing in hand is to blame."""
        self._notes[:] = bytes(len(self._notes))

    def close(self) -> None:
        """The shard is whole."""
        self._notes.close()
        for path in (self._known_path, self._notes_path):
            path.unlink(missing_ok=True)


def acquit_all(folder: Path) -> None:
    """Workers were ended on purpose: nothing that they had in hand is to blame."""
    for path in folder.glob("*.notes"):
        path.unlink()


def _read(path: Path) -> _Known:
    try:
        return _Known.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return _Known()


def _learned(known: _Known, left: bytes) -> str:
    """Enter what a dead worker's notes tell; what is news of it."""
    names = [left[at : at + _NAME_BYTES] for at in range(0, len(left), _NAME_BYTES)]
    in_hand = {name.hex() for name in names if name != _NOBODY}
    news = ""
    fresh = in_hand - set(known.suspects)
    known.suspects = sorted({*known.suspects, *in_hand})
    if fresh and known.more_news:
        known.more_news = False
        news = f"{len(in_hand)} rows that were in hand are done last, one at a time"
    if names and names[0] != _NOBODY:
        alone = names[0].hex()
        known.deaths[alone] = known.deaths.get(alone, 0) + 1
        killers = sum(deaths >= DEATHS for deaths in known.deaths.values())
        if known.deaths[alone] == DEATHS and killers <= MOST_KILLERS:
            known.more_news = True
            news = f"a row that ended {DEATHS} workers is dropped as worker_killed"
    return news
