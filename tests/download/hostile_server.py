"""A web server that does on request what the worst servers do."""

from __future__ import annotations

import http.server
import io
import random
import threading
import time
import zlib
from collections import Counter
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from pipelines.world.server import pixel_bomb

CRASHES_DECODERS = b"crashes decoders"
"""What images end with that `pool_targets.dying_of_rows` dies of."""


def picture(
    seed: int = 0, *, kind: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (64, 48)
) -> bytes:
    """An image file of noise: it does not compress away, so a cut is a cut in the picture."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    data = random.Random(seed).randbytes(size[0] * size[1] * channels)
    stream = io.BytesIO()
    Image.frombytes(mode, size, data).save(stream, kind)
    return stream.getvalue()


class HostileServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.stopping = threading.Event()
        self.gate_reached, self.gate_open = threading.Event(), threading.Event()
        self.robots: tuple[int, bytes] = (404, b"")
        """Status and body of /robots.txt."""
        self.robots_first: list[tuple[int, bytes]] = []
        """What /robots.txt is before that, once each; status 0 breaks the connection."""
        self.times: list[float] = []
        """When requests for /counted came."""
        self.at_once = self.most_at_once = 0
        self._counting = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, change: int) -> None:
        """A request for /counted begins or ends."""
        with self._counting:
            self.at_once += change
            self.most_at_once = max(self.most_at_once, self.at_once)

    def close_gate(self) -> None:
        """From now on a request for /gate.jpg waits for `gate_open`."""
        self.gate_reached.clear()
        self.gate_open.clear()

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HostileServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.hits[parts.path] += 1
        self.server.agents.add(self.headers.get("User-Agent", ""))
        name = parts.path.strip("/").split("/")[0].partition(".")[0].replace("-", "_")
        action = getattr(self, f"page_{name}", None)
        if action is None:
            return self.answer(404, b"not here")
        action(parse_qs(parts.query), parts.path)

    def answer(self, status: int, body: bytes, **fields: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def page_ok(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(200, picture(zlib.crc32(path.encode())), Content_Type="image/jpeg")

    def page_crashes_decoders(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(200, picture(5) + CRASHES_DECODERS)

    def page_gate(self, query: dict[str, list[str]], path: str) -> None:
        self.server.gate_reached.set()
        self.server.gate_open.wait(20)
        self.page_ok(query, path)

    def page_lying_type(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(200, picture(1, kind="PNG"), Content_Type="text/html")

    def page_status(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(int(path.rsplit("/", 1)[1]), b"")

    def page_flaky(self, query: dict[str, list[str]], path: str) -> None:
        if self.server.hits[path] == 1:
            return self.answer(503, b"")
        self.page_ok(query, path)

    def page_busy(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(429, b"", Retry_After="3600")

    def page_redirect(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(302, b"", Location=query["to"][0])

    def page_loop(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(302, b"", Location=path)

    def page_html(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(200, b"<!DOCTYPE html><html><p>Not found</p></html>", Content_Type="image/jpeg")

    def page_svg(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(200, b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>")

    def page_empty(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(200, b"")

    def page_truncated(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(200, picture(2)[:1500])

    def page_bomb(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(200, pixel_bomb())

    def page_gzip(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(200, zlib.compress(bytes(10_000_000)), Content_Encoding="gzip")

    def page_robots(self, query: dict[str, list[str]], path: str) -> None:
        status, body = self.server.robots_first.pop(0) if self.server.robots_first else self.server.robots
        if status == 0:
            self.close_connection = True
        else:
            self.answer(status, body)

    def page_counted(self, query: dict[str, list[str]], path: str) -> None:
        self.server.times.append(time.monotonic())
        self.server.count(1)
        self.server.stopping.wait(0.02)
        self.server.count(-1)
        self.page_ok(query, path)

    def page_tagged(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(200, picture(3), X_Robots_Tag=query["tag"][0])

    def page_later(self, query: dict[str, list[str]], path: str) -> None:
        if self.server.hits[path] == 1:
            return self.answer(int(query.get("status", ["503"])[0]), b"", Retry_After=query["after"][0])
        self.page_ok(query, path)

    def page_broken(self, query: dict[str, list[str]], path: str) -> None:
        if self.server.hits[path] == 1:
            self.close_connection = True
            return None
        self.page_ok(query, path)

    def page_many_fields(self, query: dict[str, list[str]], path: str) -> None:
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: a\r\n" % at for at in range(3000)) + b"\r\n"
        )

    def page_interim(self, query: dict[str, list[str]], path: str) -> None:
        while not self.server.stopping.is_set():
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    def page_long_status(self, query: dict[str, list[str]], path: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 " + b"a" * 200_000 + b"\r\n\r\n")

    def page_deflate(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(200, zlib.compress(bytes(10_000_000)), Content_Encoding="deflate")

    def page_text(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(200, b"just words", Content_Type="image/png")

    def page_noai(self, query: dict[str, list[str]], path: str) -> None:
        self.answer(200, picture(3), X_Robots_Tag="noimageai")

    def page_announced(self, query: dict[str, list[str]], path: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(1 << 40))
        self.end_headers()

    def page_endless(self, query: dict[str, list[str]], path: str) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        while not self.server.stopping.is_set():
            self.wfile.write(b"\xff\xd8\xff" * 20_000)

    def page_endless_chunks(self, query: dict[str, list[str]], path: str) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while not self.server.stopping.is_set():
            self.wfile.write(b"4\r\nabcd\r\n" * 1000)

    def page_endless_head(self, query: dict[str, list[str]], path: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.server.stopping.is_set():
            self.wfile.write(b"X-" + b"a" * 60_000 + b": b\r\n")

    def page_drip(self, query: dict[str, list[str]], path: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        while not self.server.stopping.wait(0.05):
            self.wfile.write(b"\xff")

    def page_drip_head(self, query: dict[str, list[str]], path: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.server.stopping.wait(0.05):
            self.wfile.write(b"a")

    def page_silent(self, query: dict[str, list[str]], path: str) -> None:
        self.server.stopping.wait(20)

    def page_cut(self, query: dict[str, list[str]], path: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(picture(4)[:1000])
        self.close_connection = True

    def page_nonsense(self, query: dict[str, list[str]], path: str) -> None:
        self.wfile.write(b"\0\1\2 nonsense\r\n\r\n")
        self.close_connection = True
