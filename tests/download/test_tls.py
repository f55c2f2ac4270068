"""HTTPS against real servers: certificates that hold and that do not, and one context for all."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.download import connection
from pipelines.download.addresses import Policy
from pipelines.download.guard import GuardedOpener
from pipelines.download.reasons import Failure, Reason
from tests.certificates import Authority
from tests.download.conftest import limits
from tests.download.hostile_server import HostileServer


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    made = Authority.make(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.bundle()))
    connection._made_tls_context.cache_clear()
    yield made
    connection._made_tls_context.cache_clear()


def secured(server: HostileServer, context: ssl.SSLContext) -> GuardedOpener:
    """The server speaks TLS from now on."""
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    policy = Policy(frozenset({server.server_port}), allow_loopback=True)
    return GuardedOpener(limits(server.server_port, timeout_seconds=2, total_seconds=4), policy)


def url(server: HostileServer, host: str = "127.0.0.1") -> str:
    return f"https://{host}:{server.server_port}/ok.jpg"


def test_many_images_are_fetched_with_one_context_even_by_threads_at_once(
    server: HostileServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    create = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda: made.append(1) or create())
    opener = secured(server, authority.server("127.0.0.1"))
    failures = []

    def fetch() -> None:
        for _ in range(3):
            try:
                assert opener.open(url(server)).read().startswith(b"\xff\xd8")
            except Failure as failure:
                failures.append(failure)

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert server.hits["/ok.jpg"] == 24
    assert made == [1]


@pytest.mark.parametrize("what", ["another name", "expired", "unknown authority"])
def test_a_certificate_that_does_not_hold_is_refused_and_says_why(
    server: HostileServer, authority: Authority, tmp_path: Path, what: str
) -> None:
    match what:
        case "another name":
            context, words = authority.server("other.example"), "IP address mismatch"
        case "expired":
            context, words = authority.server("127.0.0.1", expired=True), "expired"
        case _:
            context, words = (
                Authority.make(tmp_path / "other").server("127.0.0.1"),
                "certificate signature failure",
            )
    with pytest.raises(Failure) as caught:
        secured(server, context).open(url(server))
    assert (caught.value.reason, caught.value.retryable) == (Reason.TLS_FAILED, False)
    assert words in caught.value.detail
    assert not server.hits


def test_a_server_that_speaks_no_tls_is_refused(server: HostileServer) -> None:
    policy = Policy(frozenset({server.server_port}), allow_loopback=True)
    with pytest.raises(Failure) as caught:
        GuardedOpener(limits(server.server_port), policy).open(url(server))
    assert caught.value.reason in (Reason.TLS_FAILED, Reason.TIMEOUT, Reason.CONNECTION_FAILED)
