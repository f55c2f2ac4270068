"""A lock in an object store: an object that its holder renews, changed only by conditional writes.

No clock is compared with another machine's: a waiting process takes the lease over when it has seen the
object unchanged for LEASE_SECONDS of its own time, or knows the holder, a process of this host, to be dead.
A holder that could not renew for as long knows that it lost the lease, and publishes nothing.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from pipelines.errors import BadInput
from pipelines.lake import location

LEASE_SECONDS = 60.0
log = logging.getLogger(__name__)


@contextmanager
def held(path: Path, *, poll_seconds: float) -> Iterator[Callable[[], None]]:
    """Hold the lease at `path`; yield what raises `BadInput` once it is lost."""
    token = uuid.uuid4().hex
    lease = _Lease(path, _acquire(path, poll_seconds, token), token)
    try:
        yield lease.check
    finally:
        lease.release()


def _acquire(path: Path, poll_seconds: float, token: str) -> str:
    """Wait until the lease is ours; return its tag."""
    seen, since, said = "", 0.0, False
    while True:
        try:
            content, tag = location.read_tagged(path)
            holder = _holder(content)
        except FileNotFoundError:
            holder, tag = {}, None
        if tag is not None and tag != seen:
            seen, since = tag, time.monotonic()
        if not holder or _is_dead(holder) or time.monotonic() - since > LEASE_SECONDS:
            try:
                return location.put_if(path, _content(0, token), tag)
            except location.Conflict:
                continue
        if not said:
            said = True
            words = f"process {holder['process']} on {holder['host']} is making this table; waiting for it"
            log.warning("%s: %s", location.url(path.parent), words)
        time.sleep(poll_seconds)


def _content(renewals: int, token: str) -> bytes:
    me = psutil.Process()
    document = {
        "host": socket.gethostname(), "process": me.pid, "started": me.create_time(),
        "token": token, "renewals": renewals,
    }  # fmt: skip
    return json.dumps(document).encode()


def _holder(content: bytes) -> dict[str, Any]:
    """Who holds the lease; empty where it was given back, or cannot be read."""
    try:
        holder: dict[str, Any] = json.loads(content)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) and {"host", "process", "started"} <= holder.keys() else {}


def _is_dead(holder: dict[str, Any]) -> bool:
    if holder["host"] != socket.gethostname():
        return False
    try:
        return bool(abs(psutil.Process(holder["process"]).create_time() - holder["started"]) > 1)
    except psutil.NoSuchProcess:
        return True


class _Lease:
    """Renews from a thread of its own until it is given back."""

    def __init__(self, path: Path, tag: str, token: str) -> None:
        self._path, self._tag, self._token = path, tag, token
        self._renewed = time.monotonic()
        self._lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease of {path.parent.name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """
        Raises:
            BadInput: another process may hold the lease by now.
        """
        if self._lost or time.monotonic() - self._renewed > LEASE_SECONDS:
            raise BadInput(
                "this run lost its lease on the table: the object store could not be reached for too long, "
                "or another run took over",
                where=location.url(self._path),
                remedy="run it again; nothing half-made was published",
            )

    def release(self) -> None:
        self._stop.set()
        self._thread.join()
        if not self._lost:
            try:
                location.put_if(self._path, b"{}", self._tag)
            except (location.Conflict, OSError) as error:
                log.warning("%s: the lease was not given back: %s", location.url(self._path), error)

    def _renew(self) -> None:
        renewals = 0
        while not self._stop.wait(LEASE_SECONDS / 4):
            renewals += 1
            try:
                self._tag = location.put_if(self._path, _content(renewals, self._token), self._tag)
                self._renewed = time.monotonic()
            except location.Conflict:
                self._lost = True
                return
            except OSError as error:
                log.warning("%s: the lease could not be renewed: %s", location.url(self._path), error)
