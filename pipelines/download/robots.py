"""robots.txt (RFC 9309): which paths of a site a crawler may fetch, and how often.

A site's file is fetched once per process, through the same guard as everything else, and its rules are kept. A file that
is not there allows all; one that the server cannot deliver (5xx, no answer) disallows all, as the RFC says, until it is
asked for again some minutes later.

Of a file only the group that is about this crawler is parsed: a stranger wrote it, and a parser that enters each of a thousand
rules for each of a thousand names would be at it for minutes.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from protego import Protego

from pipelines.download.reasons import Failure, Reason

MAX_BYTES = 512_000
"""What is beyond is not read; the RFC asks for 500 KiB at least."""
MAX_CRAWL_DELAY = 10.0
"""Seconds; a site that asks for longer pauses is passed over, since it would hold its shard for days."""
MAX_RULES = 5_000
"""A site with more for one crawler is passed over: each rule is looked at for each of its images."""
FAILURE_SECONDS = 180.0
"""How long a robots.txt that could not be had is not asked for again."""
_SITES_KEPT = 5_000
_CHARACTERS_KEPT = 8 << 20
"""Of all sites' rules together; parsed they take up to 20 times as much memory."""
_REFUSING = frozenset({
    Reason.HTTP_5XX, Reason.HTTP_429, Reason.TIMEOUT, Reason.CONNECTION_FAILED, Reason.DNS_FAILED, Reason.TLS_FAILED,
    Reason.ADDRESS_REFUSED, Reason.PORT_REFUSED, Reason.DISALLOWED_BY_SITE,
})  # fmt: skip
"""Failures for which nothing of the site is fetched."""


@dataclass
class _Site:
    """What is known of a site; its lock is held while its file is fetched."""

    lock: threading.Lock
    rules: Protego | None = None
    size: int = 0
    """Characters of the rules."""
    failure: Failure | None = None
    known_until: float = 0.0


class Robots:
    """The rules of the sites that this process meets."""

    def __init__(self, fetch: Callable[[str], bytes], agent: str) -> None:
        """`fetch` gets a URL's body or raises `Failure`; `agent` is the crawler's name in rules."""
        self._fetch, self._agent = fetch, agent
        self._sites: dict[str, _Site] = {}
        self._lock = threading.Lock()
        self._characters = 0

    def check(self, origin: str, path: str) -> float:
        """Seconds between two fetches that the site asks for, 0 if it does not.

        Raises:
            Failure: the site disallows the path, or nobody knows because its robots.txt cannot be had.
        """
        site = self._site(origin)
        with site.lock:
            if site.known_until <= time.monotonic():
                self._learn(site, origin)
            rules, failure = site.rules, site.failure
        if failure is not None:
            wait = max(0.0, site.known_until - time.monotonic()) if failure.wait_seconds else 0.0
            raise Failure(failure.reason, f"robots.txt: {failure.detail}", wait_seconds=wait, own=failure.own)
        if rules is None:
            return 0.0
        if not rules.can_fetch(path, self._agent):
            raise Failure(Reason.DISALLOWED_BY_SITE, "robots.txt")
        delay = float(rules.crawl_delay(self._agent) or 0.0)
        if delay > MAX_CRAWL_DELAY:
            raise Failure(Reason.DISALLOWED_BY_SITE, f"robots.txt asks for {delay:g} s between fetches")
        return delay

    def _site(self, origin: str) -> _Site:
        with self._lock:
            if origin not in self._sites:
                if len(self._sites) >= _SITES_KEPT:
                    self._forget_oldest()
                self._sites[origin] = _Site(threading.Lock())
            return self._sites[origin]

    def _forget_oldest(self) -> None:
        """A list sorted by host does not come back to it."""
        self._characters -= self._sites.pop(next(iter(self._sites))).size

    def _learn(self, site: _Site, origin: str) -> None:
        rules, failure = "", None
        try:
            body = self._fetch(f"{origin}/robots.txt")
            rules = rules_for(self._agent, body[:MAX_BYTES].decode("utf-8", "replace"))
        except Failure as error:
            # 4xx: there are no rules. What is no answer to the question (a redirect elsewhere, nonsense), neither.
            failure = error if error.reason in _REFUSING else None
        site.failure, site.rules = failure, _parsed(rules)
        site.known_until = time.monotonic() + _lasts(failure)
        with self._lock:
            if self._sites.get(origin) is site:
                self._characters += len(rules) - site.size
                site.size = len(rules)
                while self._characters > _CHARACTERS_KEPT and len(self._sites) > 1:
                    self._forget_oldest()


_LINE = re.compile(
    r"(?P<name>user[- ]?agent)(?:\s*:|\s|$)(?P<agent>.*)"
    r"|(?P<rule>allow|dis+al+[oa]w|diasllow)(?:\s*:|\s|$)(?P<path>.*)"
    r"|(?P<delay>crawl[- ]delay)(?:\s*:|\s|$)(?P<seconds>.*)"
    r"|(?:request[- ]rate|visit[- ]time)(?:\s*:|\s|$)",
    re.IGNORECASE,
)
"""The lines that make groups, as sites write them: with a space for a hyphen or a colon, and `disallow` misspelt."""


def rules_for(agent: str, text: str) -> str:
    """The lines of a robots.txt that are about one crawler, as one group for all: those that name it, else those for `*`.

    Takes time and memory in proportion to the text.

    Raises:
        Failure: there are too many.
    """
    own: list[str] = []
    common: list[str] = []
    named = naming = False
    groups: list[list[str]] = []
    for line in text.splitlines():
        found = _LINE.match(line.partition("#")[0].strip())
        if found is None:
            # A sitemap, or what nobody knows: it neither ends a group nor belongs to one.
            continue
        if found["name"] is None:
            naming = False
            for group in groups:
                if found["rule"] and (path := found["path"].strip()):
                    group.append(f"{'Allow' if found['rule'].lower() == 'allow' else 'Disallow'}: {path}")
                elif found["delay"]:
                    group.append(f"Crawl-delay: {found['seconds'].strip()}")
            continue
        if not naming:
            naming, groups = True, []
        name = re.split(r"[/ (]", found["agent"].strip().lower(), maxsplit=1)[0]
        if name == "*":
            addressed = common
        elif name == agent or (name.endswith("*") and agent.startswith(name.rstrip("*"))):
            addressed, named = own, True
        else:
            continue
        if not any(group is addressed for group in groups):
            groups.append(addressed)
    rules = own if named else common
    if len(rules) > MAX_RULES:
        raise Failure(Reason.DISALLOWED_BY_SITE, f"{len(rules)} rules for one crawler")
    return "\n".join(["User-agent: *", *rules]) if rules else ""


def _lasts(failure: Failure | None) -> float:
    """For how many seconds nothing else would come of asking again."""
    if failure is None or failure.reason == Reason.DISALLOWED_BY_SITE:
        return math.inf
    if failure.own:
        return 0.0
    return min(failure.wait_seconds or FAILURE_SECONDS, FAILURE_SECONDS)


def _parsed(rules: str) -> Protego | None:
    """The rules; none where there are none, or none that can be read."""
    try:
        return Protego.parse(rules) if rules else None
    except (ValueError, AttributeError, IndexError, RecursionError):
        return None
