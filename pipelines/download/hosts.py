"""Politeness: how many connections a host gets at once, and when it wants to be left alone.

The limit holds over all worker processes of a run. A connection holds a lock on one byte of a file, at a place
that the host's name decides; the kernel frees it when the process ends, however it ends. Other hosts' bytes
lie elsewhere, but for one in 2^40 that shares a place, and then waits needlessly.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.download.reasons import Failure, Reason

_LOCK = struct.Struct("hhqqi4x")
"""`struct flock` of 64-bit Linux: type, whence, start, length, pid."""
_PLACES = 1 << 40
_FIRST_WAIT_SECONDS, _MOST_WAIT_SECONDS = 0.002, 0.1
_BEAT_SECONDS = 1.0
_REMEMBERED = 100_000
_GIVEN_UP_SECONDS = 3600.0


class Hosts:
    """The turns of all threads of one process; processes meet in the file."""

    def __init__(self, file: Path | None, connections: int) -> None:
        """`connections`: to one host at once; 0 or no file: as many as there are threads."""
        self._file, self._slots = file, connections
        self._descriptors = threading.local()
        self._left_alone: dict[str, float] = {}
        self._paces: dict[str, float] = {}
        self._given_up: dict[str, float] = {}
        self.beat: Callable[[], None] = lambda: None
        """Called every few moments while a thread waits: who waits politely has not fallen silent."""

    def pace(self, host: str, seconds: float) -> None:
        """From now on the host gets one connection at a time, and one in so many seconds; 0 changes nothing."""
        if seconds > 0:
            self._paces[host] = seconds

    def leave_alone(self, host: str, seconds: float) -> None:
        """Start nothing with the host for so long: it asked for that."""
        if len(self._left_alone) >= _REMEMBERED:
            self._left_alone.clear()
        self._left_alone[host] = max(time.monotonic() + seconds, self._left_alone.get(host, 0.0))

    def give_up(self, host: str) -> None:
        """It was waited for, as it asked, and in vain: for some time it is not waited for again."""
        if len(self._given_up) >= _REMEMBERED:
            self._given_up.clear()
        self._given_up[host] = time.monotonic() + _GIVEN_UP_SECONDS

    def is_given_up(self, host: str) -> bool:
        return self._given_up.get(host, 0.0) > time.monotonic()

    def wait(self, seconds: float) -> None:
        """Let time pass, with a beat now and then."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.beat()
            time.sleep(min(left, _BEAT_SECONDS))

    @contextlib.contextmanager
    def turn(self, host: str, patience: float) -> Iterator[None]:
        """A connection's turn with a host.

        Raises:
            Failure: the host wants to be left alone for longer than `patience` seconds.
        """
        wait = self._left_alone.get(host, 0.0) - time.monotonic()
        if wait > patience:
            raise Failure(
                Reason.HTTP_429, f"the site asked to be left alone for {wait:.0f} s more", wait_seconds=wait
            )
        self.wait(wait)
        pace = self._paces.get(host, 0.0)
        slots = 1 if pace else self._slots
        if self._file is None or slots == 0:
            yield
            return
        descriptor = self._descriptor(self._file)
        place = self._acquired(descriptor, host, slots)
        started = time.monotonic()
        try:
            yield
        finally:
            if pace:
                self.wait(started + pace - time.monotonic())
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_UNLCK, 0, place, 1, 0))

    def _descriptor(self, file: Path) -> int:
        """An open file of this thread's own: such locks belong to the opening, not to the process."""
        if not hasattr(self._descriptors, "number"):
            self._descriptors.number = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        number: int = self._descriptors.number
        return number

    def _acquired(self, descriptor: int, host: str, slots: int) -> int:
        first = int.from_bytes(hashlib.sha256(host.encode()).digest()[:8]) % _PLACES * 64
        wait = _FIRST_WAIT_SECONDS
        while True:
            for slot in range(slots):
                request = _LOCK.pack(fcntl.F_WRLCK, 0, first + slot, 1, 0)
                with contextlib.suppress(BlockingIOError, PermissionError):
                    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
                    return first + slot
            self.beat()
            time.sleep(wait)
            wait = min(2 * wait, _MOST_WAIT_SECONDS)
