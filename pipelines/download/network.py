"""Whether this machine itself is off the network: then no row of a list is to blame, and none may be dropped for it."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable

from pipelines.errors import Interrupted

SUSPICIOUS_HOSTS = 20
"""So many hosts that this machine cannot reach, one after the other and none reached between, are no longer their fault."""
OWN_ERRORS = frozenset({
    errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.EMFILE, errno.ENFILE,
})  # fmt: skip
"""What the system answers where a connection did not even begin."""
_HOSTS_REMEMBERED = 8


class NetworkDown(OSError):
    """No host was reached for a long time."""

    def __init__(self, words: str) -> None:
        super().__init__(errno.ENETDOWN, words)


def explained(error: OSError) -> Exception:
    """For an error that a worker reported: the end of a run that can go on later, if the network was down."""
    return Interrupted(error.strerror) if error.errno == errno.ENETDOWN else error


class Network:
    """What the requests of this process tell about its network. For all threads."""

    def __init__(self, answers: Callable[[str, int], bool]) -> None:
        """`answers`: whether a host can be connected to now, its name looked up anew."""
        self._answers = answers
        self._lock = threading.Lock()
        self._failed: dict[str, str] = {}
        self._since = 0.0
        self._reached: dict[tuple[str, int], None] = {}

    def failed(self, host: str, words: str) -> None:
        """A request did not come as far as the host, for a reason that may be this machine's own."""
        with self._lock:
            if not self._failed:
                self._since = time.monotonic()
            if len(self._failed) < SUSPICIOUS_HOSTS:
                self._failed[host] = words

    def reached(self, host: str, port: int) -> None:
        """A host was connected to."""
        with self._lock:
            self._failed.clear()
            if len(self._reached) < _HOSTS_REMEMBERED:
                self._reached[host, port] = None

    @property
    def suspicious(self) -> bool:
        """Whether many hosts could not be reached, and none between."""
        return len(self._failed) >= SUSPICIOUS_HOSTS

    def check(self, most_seconds: float) -> None:
        """Find out whether it is this machine's network, by hosts that were reached before.

        A list may hold nothing but dead names for thousands of rows; those hosts are then there all the same.

        Raises:
            NetworkDown: it is, for `most_seconds` already.
        """
        with self._lock:
            known, since, words = list(self._reached), self._since, list(self._failed.values())
        for host, port in known:
            if self._answers(host, port):
                self.reached(host, port)
                return
        seconds = time.monotonic() - since
        if seconds >= most_seconds:
            raise NetworkDown(
                f"no host was reached for {seconds:.0f} s, though {len(words)} or more were tried ({words[-1]}); look at this "
                f"machine's network and resolver. No row was dropped for it"
            )
