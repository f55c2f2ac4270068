"""The guarded opener against a real server that misbehaves."""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from typing import Any
from urllib.parse import quote

import pytest

from pipelines.download import connection
from pipelines.download.addresses import Policy
from pipelines.download.guard import GuardedOpener, disallows
from pipelines.download.reasons import Failure, Reason
from tests.download.conftest import limits
from tests.download.hostile_server import HostileServer, picture


def opener(server: HostileServer, *, allow_loopback: bool = True, **parameters: object) -> GuardedOpener:
    policy = Policy(frozenset({server.server_port}), allow_loopback)
    return GuardedOpener(limits(server.server_port, **parameters), policy)


def failure(opener: GuardedOpener, url: str) -> Failure:
    with pytest.raises(Failure) as caught:
        opener.open(url)
    return caught.value


def test_an_image_is_fetched_whole_also_behind_redirects(server: HostileServer) -> None:
    far = "/redirect?to=" + quote("/redirect?to=/lying-type.png")
    assert opener(server).open(server.origin + far).read() == picture(1, kind="PNG")


def test_requests_say_honestly_who_asks(server: HostileServer) -> None:
    asking = opener(server, user_agent="our-crawl/2 (mail@example.org)")
    request = urllib.request.Request(server.origin + "/ok.jpg", headers={"User-Agent": "Mozilla/5.0"})
    asking.open(request)
    assert server.agents == {"our-crawl/2 (mail@example.org)"}


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing.jpg", Reason.HTTP_404),
        ("/status/403", Reason.HTTP_403),
        ("/status/418", Reason.HTTP_4XX),
        ("/status/500", Reason.HTTP_5XX),
        ("/status/204", Reason.HTTP_OTHER),
        ("/status/302", Reason.HTTP_OTHER),
        ("/loop", Reason.TOO_MANY_REDIRECTS),
        ("/gzip", Reason.NOT_AN_IMAGE),
        ("/noai", Reason.DISALLOWED_BY_SITE),
        ("/announced", Reason.TOO_LARGE),
        ("/endless", Reason.TOO_LARGE),
        ("/endless-chunks", Reason.TOO_LARGE),
        ("/endless-head", Reason.TOO_LARGE),
        ("/drip", Reason.TIMEOUT),
        ("/drip-head", Reason.TIMEOUT),
        ("/silent", Reason.TIMEOUT),
        ("/cut", Reason.CONNECTION_FAILED),
        ("/nonsense", Reason.BAD_RESPONSE),
    ],
)
def test_what_a_bad_server_does_ends_in_its_reason(server: HostileServer, path: str, reason: Reason) -> None:
    assert failure(opener(server), server.origin + path).reason == reason


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a.jpg",
        "data:image/png;base64,AAAA",
        "http://10.0.0.1:{port}/ok.jpg",
        "http://192.168.0.1:{port}/ok.jpg",
        "http://169.254.169.254:{port}/latest/meta-data/",
        "http://[::ffff:127.0.0.1]:{port}/ok.jpg",
        "http://2130706433:{port}/ok.jpg",
        "http://0x7f.1:{port}/ok.jpg",
        "http://0177.0.0.1:{port}/ok.jpg",
        "http://a:b@127.0.0.1:{port}/ok.jpg",
        "http://127.0.0.1:22/ok.jpg",
        "http://[/ok.jpg",
    ],
)
def test_a_redirect_to_what_may_not_be_fetched_is_refused(server: HostileServer, location: str) -> None:
    to = quote(location.format(port=server.server_port), safe="")
    assert failure(opener(server), f"{server.origin}/redirect?to={to}").reason == Reason.REDIRECT_REFUSED
    assert server.hits["/ok.jpg"] == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_loopback_is_refused_unless_the_manifest_allows_it(server: HostileServer, host: str) -> None:
    refused = failure(opener(server, allow_loopback=False), f"http://{host}:{server.server_port}/ok.jpg")
    assert refused.reason == Reason.ADDRESS_REFUSED
    assert not server.hits


def _resolving(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    asked: list[str] = []

    def getaddrinfo(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers[len(asked) - 1], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(connection, "_names", {})
    return asked


def test_a_name_for_a_private_address_is_refused(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolving(monkeypatch, "10.1.2.3")
    url = f"http://inside.example:{server.server_port}/ok.jpg"
    assert failure(opener(server), url).reason == Reason.ADDRESS_REFUSED


def test_the_address_that_was_checked_is_the_one_connected_to(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: a second look-up would give another address, and there is none."""
    asked = _resolving(monkeypatch, "127.0.0.1", "10.1.2.3")
    opener(server).open(f"http://rebinding.example:{server.server_port}/ok.jpg")
    assert asked == ["rebinding.example"]


def test_a_name_is_checked_at_each_use_though_looked_up_once(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolving(monkeypatch, "127.0.0.1")
    url = f"http://rebinding.example:{server.server_port}/ok.jpg"
    opener(server).open(url)
    assert failure(opener(server, allow_loopback=False), url).reason == Reason.ADDRESS_REFUSED


def test_only_what_can_succeed_is_tried_again(server: HostileServer) -> None:
    again = opener(server, retries=2)
    again.open(server.origin + "/flaky/a.jpg")
    assert failure(again, server.origin + "/missing.jpg").reason == Reason.HTTP_404
    assert failure(again, server.origin + "/busy").reason == Reason.HTTP_429
    assert server.hits == {"/flaky/a.jpg": 2, "/missing.jpg": 1, "/busy": 1}


def test_an_unknown_host_is_a_reason_and_not_an_exception(server: HostileServer) -> None:
    url = f"http://no-such-host.invalid:{server.server_port}/a.jpg"
    assert failure(opener(server), url).reason in (Reason.DNS_FAILED, Reason.TIMEOUT)


def test_a_failing_tls_handshake_is_named(server: HostileServer) -> None:
    url = f"https://127.0.0.1:{server.server_port}/ok.jpg"
    assert failure(opener(server), url).reason in (
        Reason.TLS_FAILED,
        Reason.TIMEOUT,
        Reason.CONNECTION_FAILED,
    )
    assert connection.tls_context() is connection.tls_context()


def test_literal_addresses_need_no_resolver() -> None:
    found = connection.resolve("::1", connection.Deadline(1, 1))
    assert found == [ipaddress.ip_address("::1")]


@pytest.mark.parametrize(
    ("line", "agent", "expected"),
    [
        ("noai", "mpm-download", True),
        ("NoIndex, nofollow", "mpm-download", True),
        ("nofollow, max-snippet: 20, noimageindex", "mpm-download", True),
        ("otherbot: noai", "mpm-download", False),
        ("mpm-download: noai", "mpm-download", True),
        ("*: noai", "mpm-download", True),
        ("nofollow", "mpm-download", False),
        ("max-image-preview: none", "mpm-download", False),
        ("", "mpm-download", False),
    ],
)
def test_robots_directives_are_read_for_us_and_for_all(line: str, agent: str, expected: bool) -> None:
    assert disallows(line, agent) is expected
