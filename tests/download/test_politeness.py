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

from pipelines.download import robots
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


def test_a_robots_txt_is_asked_for_again_as_an_image_is(server: HostileServer) -> None:
    server.robots_first = [(0, b""), (503, b"")]
    opener(server, retries=2, total_seconds=10).open(f"{origin(server)}/ok/a.jpg")
    assert server.hits == {"/robots.txt": 3, "/ok/a.jpg": 1}


def test_a_robots_txt_that_could_not_be_had_is_asked_for_again_minutes_later(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robots, "FAILURE_SECONDS", 0.3)
    server.robots_first = [(503, b"")]
    asking = opener(server)
    refused = reason(asking, f"{origin(server)}/ok/a.jpg")
    assert (refused.reason, refused.detail) == (Reason.HTTP_5XX, "robots.txt: status 503")
    assert reason(asking, f"{origin(server)}/ok/a.jpg").reason == Reason.HTTP_5XX
    time.sleep(0.35)
    asking.open(f"{origin(server)}/ok/a.jpg")
    assert server.hits == {"/robots.txt": 2, "/ok/a.jpg": 1}


def test_many_rules_for_many_crawlers_cost_what_their_bytes_do() -> None:
    """Each rule entered for each name would be 5 x 10^8 entries."""
    names = "".join(f"User-agent: {at}\n" for at in range(14_000))
    text = names + "User-agent: *\n" + "Disallow: /private/\n" * 4_000 + "Disallow: /a\n" * 10_000
    assert 400_000 < len(text) < robots.MAX_BYTES
    started = time.process_time()
    with pytest.raises(Failure, match="14000 rules for one crawler"):
        robots.rules_for("mpm-download", text)
    fewer = robots.rules_for("mpm-download", text.replace("Disallow: /a\n", ""))
    asking = robots.Robots(lambda _: text.replace("Disallow: /a\n", "").encode(), "mpm-download")
    assert asking.check("http://a.example:80", "/public/") == 0
    with pytest.raises(Failure):
        asking.check("http://a.example:80", "/private/1.jpg")
    assert fewer.count("\n") == 4_000
    assert time.process_time() - started < 5


def test_a_site_with_rules_without_end_is_passed_over(server: HostileServer) -> None:
    server.robots = 200, b"User-agent: *\n" + b"Disallow: /a\n" * 6_000
    asking = opener(server)
    for _ in range(2):
        refused = reason(asking, f"{origin(server)}/ok/a.jpg")
        assert refused.reason == Reason.DISALLOWED_BY_SITE
        assert "6000 rules" in refused.detail
    assert server.hits == {"/robots.txt": 1}


def test_rules_of_many_sites_are_kept_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robots, "_CHARACTERS_KEPT", 5_000)
    asked: list[str] = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return b"User-agent: *\nDisallow: /" + b"a" * 2_000

    asking = robots.Robots(fetch, "mpm-download")
    for at in (0, 1, 2, 0, 2):
        asking.check(f"http://{at}.example:80", "/b")
    assert [urlsplit(url).hostname for url in asked] == [f"{at}.example" for at in (0, 1, 2, 0)]


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("User-agent: *\nDisallow: /a", ["Disallow: /a"]),
        ("Disallow: /nobody\nUser-agent: other\nDisallow: /b\nUser-agent: *\nAllow: /a # why", ["Allow: /a"]),
        ("User-agent: other\nUser-agent: *\nSitemap: http://a/\nDisallow: /a\nCrawl-delay: 2",
         ["Disallow: /a", "Crawl-delay: 2"]),
        ("User-agent: *\nDisallow: /a\nUser-agent: MPM-Download\nDisallow: /b", ["Disallow: /b"]),
        ("User-agent: mpm-download/1.0\nDisallow: /b\n\nUser-agent: mpm-download\nDisallow: /c",
         ["Disallow: /b", "Disallow: /c"]),
        ("User-agent: *\nDisallow: /a\nUser-agent: mpm-download\nDisallow:", []),
        ("User-agent: mpm*\nDisallow: /a\nUser-agent: mpm-downloader\nDisallow: /b", ["Disallow: /a"]),
        ("User-agent: *\nUser-agent: *\nUseragent: mpm-download\ndissallow /a\nunknown: b\nDisallow : /c",
         ["Disallow: /a", "Disallow: /c"]),
        ("user agent *\r\nDisallow: /a\r\n\r\nVisit-time: 0600-0845\r\nUser-agent: b\r\nDisallow: /", ["Disallow: /a"]),
        ("", []),
    ],
)  # fmt: skip
def test_of_a_robots_txt_the_group_about_this_crawler_is_read(text: str, rules: list[str]) -> None:
    expected = "\n".join(["User-agent: *", *rules]) if rules else ""
    assert robots.rules_for("mpm-download", text) == expected


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
