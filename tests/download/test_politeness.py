"""Hosts are met politely: few connections at once over all processes, robots.txt kept to, pauses kept."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipelines.download.addresses import Policy
from pipelines.download.guard import GuardedOpener
from pipelines.download.hosts import Hosts
from pipelines.download.readers.record import WEB
from pipelines.download.reasons import Failure, Reason
from pipelines.download.source import ShardRow
from pipelines.download.web import interleaved
from tests.download import pool_targets
from tests.download.conftest import limits
from tests.download.hostile_server import HostileServer
from tests.download.test_guard import _resolving


def opener(server: HostileServer, turns: Path | None = None, **parameters: object) -> GuardedOpener:
    policy = Policy(frozenset({server.server_port}), allow_loopback=True)
    return GuardedOpener(limits(server.server_port, **{"robots_txt": True, **parameters}), policy, turns)


def origin(server: HostileServer) -> str:
    return f"http://site.example:{server.server_port}"


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has a name, as one on the web: loopback itself is met without ceremony."""
    _resolving(monkeypatch, *["127.0.0.1"] * 5)


def reason(opener: GuardedOpener, url: str) -> Failure:
    with pytest.raises(Failure) as caught:
        opener.open(url)
    return caught.value


@pytest.mark.parametrize("limit", [1, 3])
def test_a_host_gets_no_more_connections_at_once_than_the_limit(
    server: HostileServer, tmp_path: Path, limit: int
) -> None:
    asking = opener(server, tmp_path / "turns", connections_per_host=limit, total_seconds=5)
    threads = [
        threading.Thread(target=asking.open, args=(f"{origin(server)}/counted/{at}.jpg",)) for at in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.times) == 12
    assert server.most_at_once == limit


def test_the_limit_holds_over_processes_and_a_killed_one_gives_its_turn_back(
    server: HostileServer, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    url = f"{server.origin}/counted/a.jpg"
    processes = [
        context.Process(target=pool_targets.taking_turns, args=(str(tmp_path / "turns"), 2, url, 5))
        for _ in range(3)
    ]
    ours, theirs = context.Pipe()
    holder = context.Process(target=pool_targets.holding_a_turn, args=(str(tmp_path / "turns"), theirs))
    holder.start()
    assert ours.poll(60)
    for process in processes:
        process.start()
    for process in processes:
        process.join(0.3)
    # The holder has one of two turns; it is killed with it in hand.
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    for process in [*processes, holder]:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(server.times) == 15
    assert server.most_at_once <= 2


def test_hosts_do_not_wait_for_each_other(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path / "turns", 1)
    done = []
    with hosts.turn("a.example", 1):
        thread = threading.Thread(target=lambda: hosts.turn("b.example", 1).__enter__() or done.append(1))
        thread.start()
        thread.join(5)
    assert done == [1]


def test_a_path_that_robots_txt_disallows_is_not_fetched(server: HostileServer) -> None:
    server.robots = (
        200,
        b"User-agent: *\nDisallow: /ok/private\n\nUser-agent: mpm-download\nDisallow: /ok/ours",
    )
    asking = opener(server)
    refused = reason(asking, f"{origin(server)}/ok/ours/a.jpg")
    assert (refused.reason, refused.detail) == (Reason.DISALLOWED_BY_SITE, "robots.txt")
    asking.open(f"{origin(server)}/ok/private/a.jpg")
    assert server.hits == {"/robots.txt": 1, "/ok/private/a.jpg": 1}


def test_robots_txt_of_the_place_that_is_redirected_to_counts(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.robots = 200, b"User-agent: *\nDisallow: /ok/"
    refused = reason(opener(server), f"{origin(server)}/redirect?to=/ok/a.jpg")
    assert refused.reason == Reason.DISALLOWED_BY_SITE
    assert server.hits["/ok/a.jpg"] == 0


@pytest.mark.parametrize(
    ("status", "body", "fetched"),
    [(404, b"", True), (403, b"", True), (200, b"\xff\xfe\0 no rules", True), (200, b"", True), (500, b"", False),
     (503, b"", False), (200, b"User-agent: *\nDisallow: /", False), (200, b"# " * 400_000, True)],
)  # fmt: skip
def test_a_robots_txt_that_is_missing_allows_and_one_that_cannot_be_had_does_not(
    server: HostileServer, status: int, body: bytes, fetched: bool
) -> None:
    server.robots = status, body
    asking = opener(server)
    for _ in range(2):
        if fetched:
            asking.open(f"{origin(server)}/ok/a.jpg")
        else:
            reason(asking, f"{origin(server)}/ok/a.jpg")
    assert server.hits["/robots.txt"] == 1
    assert server.hits["/ok/a.jpg"] == 2 * fetched


def test_rules_can_be_switched_off_and_are_then_not_even_asked_for(server: HostileServer) -> None:
    server.robots = 200, b"User-agent: *\nDisallow: /"
    opener(server, robots_txt=False).open(f"{origin(server)}/ok/a.jpg")
    assert server.hits["/robots.txt"] == 0


def test_the_pause_that_a_site_asks_for_is_kept_by_all_threads(server: HostileServer, tmp_path: Path) -> None:
    server.robots = 200, b"User-agent: *\nCrawl-delay: 0.15"
    asking = opener(server, tmp_path / "turns")
    started = time.monotonic()
    threads = [
        threading.Thread(target=asking.open, args=(f"{origin(server)}/counted/{at}.jpg",)) for at in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The fourth cannot begin before three pauses have passed.
    assert len(server.times) == 4
    assert max(server.times) - started >= 3 * 0.15


def test_a_site_that_asks_for_a_minute_between_fetches_is_passed_over(server: HostileServer) -> None:
    server.robots = 200, b"User-agent: *\nCrawl-delay: 60"
    assert reason(opener(server), f"{origin(server)}/ok/a.jpg").reason == Reason.DISALLOWED_BY_SITE


def test_urls_of_one_host_are_spread_over_the_shard() -> None:
    urls = [f"http://{host}.example/{at}" for host in "aab" for at in range(2)] + ["http://c.example/0"]
    groups = [[ShardRow(at, "", url, "", WEB)] for at, url in enumerate(urls)]
    hosts = [urlsplit(group[0].url).netloc[0] for group in interleaved(groups)]
    assert "".join(hosts) == "abcabaa"
