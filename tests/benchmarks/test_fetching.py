"""Published files fetched from a real web server that misbehaves, and from a real object store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.benchmark_files import fetching
from pipelines.benchmark_files.fetching import ATTEMPTS, fetch
from pipelines.benchmark_files.spec import Published
from pipelines.errors import BadInput, Interrupted

CONTENT = bytes(range(256)) * 4000
Script = Callable[[int, BaseHTTPRequestHandler], None]
"""(number of the request, from 0; how to answer it)"""


class Web:
    """A server on loopback that answers by a script, and remembers what was asked of it."""

    def __init__(self) -> None:
        self.script: Script = lambda number, handler: send(handler, CONTENT)
        self.asked: list[dict[str, str]] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web.asked.append(dict(self.headers.items()))
                web.script(len(web.asked) - 1, self)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/file.tsv"


def send(
    handler: BaseHTTPRequestHandler,
    content: bytes,
    status: int = 200,
    *,
    cut: int | None = None,
    **headers: str,
) -> None:
    """Answer with `content`; `cut`: close the connection after so many bytes of it."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[:cut])
    if cut is not None:
        handler.close_connection = True


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(fetching, "FIRST_PAUSE_SECONDS", 0.01)
    web = Web()
    thread = threading.Thread(target=web.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield web
    web.server.shutdown()
    web.server.server_close()


def got(web: Web, folder: Path, seconds: float = 20.0) -> bytes:
    fetch(Published(url=web.url), folder / "file.tsv", seconds=seconds)
    return (folder / "file.tsv").read_bytes()


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_in_trouble_is_asked_again(web: Web, tmp_path: Path, status: int) -> None:
    web.script = lambda number, handler: (
        send(handler, b"busy", status) if number < 2 else send(handler, CONTENT)
    )
    assert got(web, tmp_path) == CONTENT and len(web.asked) == 3


def test_what_a_broken_connection_brought_is_not_fetched_again(web: Web, tmp_path: Path) -> None:
    """Each answer ends after a quarter; only what is missing is asked for."""
    quarter = len(CONTENT) // 4

    def script(number: int, handler: BaseHTTPRequestHandler) -> None:
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        place = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        status = 206 if start else 200
        send(
            handler,
            CONTENT[start:],
            status,
            cut=quarter if number < 3 else None,
            ETag='"1"',
            Content_Range=place,
        )

    web.script = script
    assert got(web, tmp_path) == CONTENT
    starts = [int(headers.get("Range", "bytes=0-")[6:-1]) for headers in web.asked]
    assert starts[0] == 0 and starts == sorted(set(starts)) and starts[-1] > len(CONTENT) // 2
    assert {headers.get("If-Range") for headers in web.asked[1:]} == {'"1"'}


def test_a_file_that_changed_between_two_attempts_is_fetched_from_its_beginning(
    web: Web, tmp_path: Path
) -> None:
    other = bytes(reversed(CONTENT))

    def script(number: int, handler: BaseHTTPRequestHandler) -> None:
        if number == 0:
            send(handler, CONTENT, cut=9000, ETag='"1"')
        else:  # If-Range names another version: the whole of the new one is sent
            send(handler, other, ETag='"2"')

    web.script = script
    assert got(web, tmp_path) == other


def test_a_cut_file_is_never_taken_for_a_whole_one(web: Web, tmp_path: Path) -> None:
    web.script = lambda number, handler: send(handler, CONTENT, cut=5000)
    with pytest.raises(Interrupted, match=f"in each of {ATTEMPTS} attempts. Run again later"):
        got(web, tmp_path)
    assert len(web.asked) == ATTEMPTS


def test_a_server_that_falls_silent_is_not_waited_for_longer_than_was_said(web: Web, tmp_path: Path) -> None:
    silent = threading.Event()

    def script(number: int, handler: BaseHTTPRequestHandler) -> None:
        if number == 0:
            silent.wait(10)
            handler.close_connection = True
        else:
            send(handler, CONTENT)

    web.script = script
    assert got(web, tmp_path, seconds=0.3) == CONTENT
    silent.set()


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(403, "a login or a licence"), (404, "check the address"), (410, "check the address")],
)
def test_what_a_server_refuses_is_told_at_once_with_its_status(
    web: Web, tmp_path: Path, status: int, remedy: str
) -> None:
    web.script = lambda number, handler: send(handler, b"no", status)
    with pytest.raises(BadInput, match=f"HTTP {status}") as caught:
        got(web, tmp_path)
    assert caught.value.where == web.url and remedy in caught.value.remedy and len(web.asked) == 1


def test_an_address_where_nobody_answers_is_named(web: Web, tmp_path: Path) -> None:
    nobody = Published(url="http://127.0.0.1:9/file.tsv")
    with pytest.raises(BadInput, match="ConnectError") as caught:
        fetch(nobody, tmp_path / "file.tsv", seconds=1.0)
    assert "check the address" in caught.value.remedy
