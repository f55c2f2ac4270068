"""Trouble that passes costs no row: hosts that asked to be left alone, and a network that was away."""

from __future__ import annotations

import multiprocessing
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.download import connection, run, web
from pipelines.download.addresses import Policy
from pipelines.download.guard import GuardedOpener
from pipelines.download.hosts import Hosts
from pipelines.download.network import NetworkDown
from pipelines.download.readers.record import WEB
from pipelines.download.reasons import Failure
from pipelines.download.source import ShardRow
from pipelines.download.spec import STAGE
from pipelines.download.suspects import Suspects
from pipelines.download.writer import ShardCounts, ShardWriter
from pipelines.errors import Interrupted
from pipelines.lake import manifest
from pipelines.stage import execute
from tests.download import pool_targets
from tests.download.conftest import CrawlMaker, limits
from tests.download.hostile_server import HostileServer
from tests.download.test_download_stage import digests, tables


class _OneByOne:
    """In the place of img2dataset's Downloader, which replaces modules of its process."""

    opener: GuardedOpener

    def __init__(self, *, sample_writer_class: Any, **_: Any) -> None:
        self.writer = sample_writer_class

    def download_shard(self, row: tuple[int, str]) -> None:
        with pa.memory_map(row[1]) as stream:
            rows = pa.ipc.open_file(stream).read_all().to_pylist()
        for meta in rows:
            try:
                image = self.opener.open(urllib.request.Request(meta["url"])).read()
            except Failure as error:
                self.writer.write(None, "", None, {**meta, "error_message": str(error)})
            else:
                self.writer.write(image, "", None, meta)


class Fetching:
    """Fetches URLs as a worker does."""

    def __init__(self, folder: Path, server: HostileServer, **parameters: object) -> None:
        self._folder = folder
        self._parameters = limits(server.server_port, **parameters)
        self.opener = GuardedOpener(
            self._parameters, Policy(frozenset({server.server_port}), allow_loopback=True)
        )
        _OneByOne.opener = self.opener
        self._shard = 0

    def __call__(self, urls: list[str]) -> ShardCounts:
        self._shard += 1
        writer = ShardWriter(
            self._folder,
            self._shard,
            "pairs",
            rows=len(urls),
            rejected=[],
            language="en",
            progress=lambda _: None,
        )
        groups = [[ShardRow(at, f"{at:032x}", url, "a", WEB)] for at, url in enumerate(urls)]
        suspects = Suspects(self._folder / "at_work", self._shard, 4)
        web.fetch(
            _OneByOne, self.opener, groups, writer, self._parameters, suspects, threads=1, folder=self._folder
        )
        return writer.close()


Fetcher = Callable[..., Fetching]


@pytest.fixture
def fetching(tmp_path: Path, server: HostileServer) -> Fetcher:
    return lambda **parameters: Fetching(tmp_path, server, **parameters)


class Resolver:
    """Names that resolve to loopback, but for those that the resolver does not get at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.away = lambda host: False
        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)
        monkeypatch.setattr(connection, "_names", {})
        monkeypatch.setattr(web, "_OUTAGE_PAUSE_SECONDS", 0.1)

    def _getaddrinfo(self, host: str, port: int | None, *_: Any, **__: Any) -> list[Any]:
        if self.away(host):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    return Resolver(monkeypatch)


def names(server: HostileServer, kind: str, count: int) -> list[str]:
    return [f"http://{kind}{at}.example:{server.server_port}/ok/{at}.jpg" for at in range(count)]


def test_rows_of_a_host_that_asks_to_be_left_alone_come_when_it_says(
    server: HostileServer, fetching: Fetcher, resolver: Resolver
) -> None:
    """The first answer is `Retry-After: 2`, and one URL may take 1 s."""
    site = f"http://busy.example:{server.server_port}"
    urls = [f"{site}/later?after=2", *(f"{site}/ok/{at}.jpg" for at in range(5)), *names(server, "other", 2)]
    started = time.monotonic()
    counts = fetching()(urls)
    assert (counts.kept, counts.dropped) == (8, {})
    assert time.monotonic() - started >= 1.9
    assert server.hits["/later"] == 2
    assert server.hits["/ok/3.jpg"] == 1


def test_a_host_is_waited_for_no_longer_than_the_recipe_says_and_then_not_again(
    server: HostileServer, fetching: Fetcher, resolver: Resolver
) -> None:
    site = f"http://busy.example:{server.server_port}"
    fetch = fetching(wait_seconds=3)
    started = time.monotonic()
    counts = fetch([f"{site}/busy", f"{site}/ok/1.jpg", *names(server, "other", 1)])
    assert (counts.kept, counts.dropped) == (1, {"http_429": 2})
    # The same host, now with a wait that would be short enough.
    fetch.opener.hosts._left_alone["busy.example"] = time.monotonic() + 2
    assert fetch([f"{site}/ok/2.jpg"]).dropped == {"http_429": 1}
    assert time.monotonic() - started < 2


def test_names_that_cannot_be_resolved_now_are_tried_once_more_and_dropped(
    server: HostileServer, fetching: Fetcher, resolver: Resolver
) -> None:
    asked: list[str] = []
    resolver.away = lambda host: host.startswith("lame") and not asked.append(host)
    counts = fetching()([*names(server, "lame", 3), *names(server, "good", 2)])
    assert (counts.kept, counts.dropped) == (2, {"dns_failed": 3})
    assert asked == ["lame0.example", "lame1.example", "lame2.example"] * 2


@pytest.mark.parametrize("code", [socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_MEMORY])
def test_a_look_up_that_failed_here_is_not_remembered(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch, fetching: Fetcher, resolver: Resolver, code: int
) -> None:
    answers = [
        socket.gaierror(code, "not now"),
        [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))],
    ]

    def getaddrinfo(*_: Any, **__: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert fetching()(names(server, "a", 1)).kept == 1


def test_many_names_without_an_answer_are_no_outage_while_others_answer(
    server: HostileServer, fetching: Fetcher, resolver: Resolver
) -> None:
    resolver.away = lambda host: host.startswith("lame")
    counts = fetching(outage_seconds=0.1)([*names(server, "good", 1), *names(server, "lame", 40)])
    assert (counts.kept, counts.dropped) == (1, {"dns_failed": 40})


def test_a_network_that_is_away_for_a_while_costs_no_row(
    server: HostileServer, fetching: Fetcher, resolver: Resolver
) -> None:
    back = time.monotonic() + 1
    resolver.away = lambda host: time.monotonic() < back
    assert fetching(outage_seconds=60)(names(server, "a", 30)).kept == 30


def test_a_network_that_stays_away_ends_the_work_and_drops_nothing(
    server: HostileServer, fetching: Fetcher, resolver: Resolver
) -> None:
    resolver.away = lambda host: True
    with pytest.raises(NetworkDown, match="no host was reached for 1 s, though 20 or more"):
        fetching(outage_seconds=0.6)(names(server, "a", 30))


def test_a_route_that_is_missing_is_this_machines_trouble(
    server: HostileServer, fetching: Fetcher, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = socket.socket.connect
    back = time.monotonic() + 1

    def unreachable(self: socket.socket, address: Any) -> None:
        if time.monotonic() < back:
            raise OSError(101, "Network is unreachable")
        connect(self, address)

    monkeypatch.setattr(connection.socket.socket, "connect", unreachable)
    assert fetching(outage_seconds=60)(names(server, "a", 25)).kept == 25


def test_a_stage_without_a_network_stops_to_go_on_later(
    server: HostileServer, maker: CrawlMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    crawl = maker.crawl([*names(server, "a", 30)])
    spec = maker.spec(
        crawl, server.server_port, workers=1, rows_per_shard=30, outage_seconds=0.5, timeout_seconds=5
    )
    monkeypatch.setattr(run.worker, "main", pool_targets.without_a_resolver)
    with pytest.raises(Interrupted, match="no host was reached"):
        execute(STAGE, spec)
    assert not manifest.exists(spec.output)
    monkeypatch.setattr(run.worker, "main", pool_targets.with_names)
    assert execute(STAGE, spec).rows == 30
    assert not multiprocessing.active_children()


def test_a_worker_that_waits_for_its_turn_is_not_taken_for_silent(
    server: HostileServer, maker: CrawlMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The site's pause is longer than the patience with a silent worker."""
    server.robots = 200, b"User-agent: *\nCrawl-delay: 10"
    monkeypatch.setattr(run, "SILENCE_SECONDS", 7.0)
    monkeypatch.setattr(run.worker, "main", pool_targets.with_names)
    site = f"http://slow.example:{server.server_port}"
    crawl = maker.crawl([f"{site}/ok/1.jpg"])
    spec = maker.spec(crawl, server.server_port, workers=1, robots_txt=True)
    made = execute(STAGE, spec)
    assert (made.rows, made.metrics["shards_retried"]) == (1, 0)
    assert len(tables(spec.output)[0]) == len(digests(spec.output)) - 2


def test_who_waits_for_a_turn_is_heard(tmp_path: Path) -> None:
    beats: list[float] = []
    hosts = Hosts(tmp_path / "turns", 1)
    hosts.beat = lambda: beats.append(time.monotonic())
    with hosts.turn("a.example", 1):
        waiting = threading.Thread(target=lambda: hosts.turn("a.example", 1).__enter__())
        waiting.start()
        time.sleep(0.4)
        assert len(beats) >= 3
    waiting.join(5)
    hosts.leave_alone("b.example", 0.3)
    beats.clear()
    with hosts.turn("b.example", 1):
        assert beats
