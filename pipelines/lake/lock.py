"""One writer per table: the second waits for the first, and then finds the table made."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.lake import lease, location

log = logging.getLogger(__name__)


@contextmanager
def exclusive(table: Path, *, poll_seconds: float = 0.5) -> Iterator[Callable[[], None]]:
    """Hold the table's lock; yield what raises `BadInput` once it is no longer held.

    On a disk the kernel lets go of it however the holder ends, SIGKILL included; in an object
    store it is a lease, which ends when its holder no longer renews it.
    """
    if location.is_remote(table):
        with lease.held(table / ".lock", poll_seconds=poll_seconds) as check:
            yield check
        return
    table.mkdir(parents=True, exist_ok=True)
    with (table / ".lock").open("a+") as stream:
        waiting = False
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    stream.seek(0)
                    holder = stream.read().strip() or "unknown"
                    log.warning("%s: process %s is making this table; waiting for it", table, holder)
                    waiting = True
                time.sleep(poll_seconds)
        stream.seek(0)
        stream.truncate()
        stream.write(str(os.getpid()))
        stream.flush()
        yield lambda: None
