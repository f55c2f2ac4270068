"""robots.txt (RFC 9309): which paths of a site a crawler may fetch, and how often.

A site's file is fetched once per process, through the same guard as everything else, and kept. A file that
is not there allows all; one that the server cannot deliver (5xx, no answer) disallows all, as the RFC says.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from protego import Protego

from pipelines.download.reasons import Failure, Reason

MAX_BYTES = 512_000
"""What is beyond is not read; the RFC asks for 500 KiB at least."""
MAX_CRAWL_DELAY = 10.0
"""Seconds; a site that asks for longer pauses is passed over, since it would hold its shard for days."""
_SITES_KEPT = 5_000
_UNREACHABLE = frozenset({
    Reason.HTTP_5XX, Reason.HTTP_429, Reason.TIMEOUT, Reason.CONNECTION_FAILED, Reason.DNS_FAILED, Reason.TLS_FAILED,
    Reason.ADDRESS_REFUSED, Reason.PORT_REFUSED,
})  # fmt: skip


@dataclass
class _Site:
    """What is known of a site; its lock is held while its file is fetched."""

    lock: threading.Lock
    rules: Protego | None = None
    failure: Failure | None = None
    known: bool = False


class Robots:
    """The rules of the sites that this process meets."""

    def __init__(self, fetch: Callable[[str], bytes], agent: str) -> None:
        """`fetch` gets a URL's body or raises `Failure`; `agent` is the crawler's name in rules."""
        self._fetch, self._agent = fetch, agent
        self._sites: dict[str, _Site] = {}
        self._lock = threading.Lock()

    def check(self, origin: str, path: str) -> float:
        """Seconds between two fetches that the site asks for, 0 if it does not.

        Raises:
            Failure: the site disallows the path, or nobody knows because its robots.txt cannot be had.
        """
        site = self._site(origin)
        with site.lock:
            if not site.known:
                self._learn(site, origin)
                site.known = True
        if site.failure is not None:
            raise Failure(site.failure.reason, f"robots.txt: {site.failure.detail}", retryable=False)
        if site.rules is None:
            return 0.0
        if not site.rules.can_fetch(path, self._agent):
            raise Failure(Reason.DISALLOWED_BY_SITE, "robots.txt")
        delay = float(site.rules.crawl_delay(self._agent) or 0.0)
        if delay > MAX_CRAWL_DELAY:
            raise Failure(Reason.DISALLOWED_BY_SITE, f"robots.txt asks for {delay:g} s between fetches")
        return delay

    def _site(self, origin: str) -> _Site:
        with self._lock:
            if origin not in self._sites:
                if len(self._sites) >= _SITES_KEPT:
                    # The oldest: a list sorted by host does not come back to it.
                    del self._sites[next(iter(self._sites))]
                self._sites[origin] = _Site(threading.Lock())
            return self._sites[origin]

    def _learn(self, site: _Site, origin: str) -> None:
        try:
            body = self._fetch(f"{origin}/robots.txt")
        except Failure as failure:
            # 4xx: there are no rules. What is no answer to the question (a redirect elsewhere, nonsense), neither.
            site.failure = failure if failure.reason in _UNREACHABLE else None
            return
        try:
            site.rules = Protego.parse(body[:MAX_BYTES].decode("utf-8", "replace"))
        except (ValueError, AttributeError, IndexError, RecursionError):
            site.rules = None  # Rules that cannot be read are none.
