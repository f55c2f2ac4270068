"""The guarded opener against a real server that misbehaves."""

from __future__ import annotations

import datetime
import email.utils
import ipaddress
import socket
import time
import urllib.request
from typing import Any
from urllib.parse import quote

import pytest

from pipelines.download import connection
from pipelines.download.addresses import Policy
from pipelines.download.guard import GuardedOpener, disallows, retry_after
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
    request = urllib.request.Request(server.origin + "/ok.jpg", headers={"User-Agent": "Mozilla/5.0"})
    opener(server, user_agent="our-crawl/2").open(request)
    opener(server, user_agent="our-crawl/2", contact="(mail@example.org)").open(request)
    assert server.agents == {"our-crawl/2", "our-crawl/2 (mail@example.org)"}


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
        ("/many-fields", Reason.BAD_RESPONSE),
        ("/interim", Reason.TOO_LARGE),
        ("/long-status", Reason.TOO_LARGE),
        ("/deflate", Reason.NOT_AN_IMAGE),
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
        "gopher://127.0.0.1/ok.jpg",
        "//169.254.169.254:{port}/ok.jpg",
        "http://[fe80::1]:{port}/ok.jpg",
        "http://[fc00::1]:{port}/ok.jpg",
        "http://[64:ff9b::7f00:1]:{port}/ok.jpg",
        "http://100.64.0.1:{port}/ok.jpg",
        "http://0.0.0.0:{port}/ok.jpg",
        "http://127.1:{port}/ok.jpg",
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


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_status_that_may_pass_is_tried_again(server: HostileServer, status: int) -> None:
    opener(server, retries=1, total_seconds=5).open(f"{server.origin}/later/{status}?status={status}&after=0")
    assert server.hits[f"/later/{status}"] == 2


def test_a_server_is_asked_again_only_after_the_time_that_it_says(server: HostileServer) -> None:
    started = time.monotonic()
    opener(server, retries=1, total_seconds=5).open(f"{server.origin}/later?after=1")
    assert server.hits["/later"] == 2
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 410, 418, 451, 501, 505])
def test_a_status_that_stays_is_not_tried_again(server: HostileServer, status: int) -> None:
    failure(opener(server, retries=3), f"{server.origin}/status/{status}")
    assert server.hits[f"/status/{status}"] == 1


def test_a_connection_that_broke_is_tried_again_and_one_that_is_refused_is_not(server: HostileServer) -> None:
    opener(server, retries=1).open(server.origin + "/broken")
    assert server.hits["/broken"] == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    refused = GuardedOpener(limits(port, retries=3), Policy(frozenset({port}), allow_loopback=True))
    with pytest.raises(Failure) as caught:
        refused.open(f"http://127.0.0.1:{port}/a.jpg")
    assert (caught.value.reason, caught.value.retryable) == (Reason.CONNECTION_FAILED, False)


def test_a_host_that_asks_to_be_left_alone_gets_no_further_request(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolving(monkeypatch, "127.0.0.1")
    origin = f"http://busy.example:{server.server_port}"
    asking = opener(server, retries=2)
    assert failure(asking, origin + "/busy").reason == Reason.HTTP_429
    left = failure(asking, origin + "/ok.jpg")
    assert (left.reason, server.hits["/ok.jpg"]) == (Reason.HTTP_429, 0)


def test_a_time_to_wait_is_read_as_a_number_or_as_a_date() -> None:
    assert retry_after("120") == 120
    soon = email.utils.format_datetime(datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90))
    assert 85 < retry_after(soon) <= 90
    for field in ("", "soon", "-5", "1e9", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Oct 99999", "9" * 400):
        assert retry_after(field) == 0


@pytest.mark.parametrize(
    "tag", ["noai", "noimageai", "noindex", "noimageindex", "noml", "mpm-download: noml"]
)
def test_an_image_whose_site_says_no_is_not_taken(server: HostileServer, tag: str) -> None:
    refused = failure(opener(server), f"{server.origin}/tagged?tag={quote(tag)}")
    assert refused.reason == Reason.DISALLOWED_BY_SITE


def test_a_name_that_does_not_exist_is_looked_up_once(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def getaddrinfo(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(connection, "_names", {})
    for _ in range(3):
        assert (
            failure(opener(server), f"http://gone.example:{server.server_port}/").reason == Reason.DNS_FAILED
        )
    assert asked == ["gone.example"]


def test_an_unknown_host_is_a_reason_and_not_an_exception(server: HostileServer) -> None:
    url = f"http://no-such-host.invalid:{server.server_port}/a.jpg"
    assert failure(opener(server), url).reason in (Reason.DNS_FAILED, Reason.TIMEOUT)


def test_literal_addresses_need_no_resolver() -> None:
    found = connection.resolve("::1", connection.Deadline(1, 1))
    assert found == [ipaddress.ip_address("::1")]


@pytest.mark.parametrize(
    ("line", "agent", "expected"),
    [
        ("noai", "mpm-download", True),
        ("NoIndex, nofollow", "mpm-download", True),
        ("noml", "mpm-download", True),
        ("noimageai", "mpm-download", True),
        ("none", "mpm-download", True),
        ("otherbot: none, noml", "mpm-download", False),
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
