"""The procedural world's web server, with the web's faults: `python -m pipelines.world.server WORLD --port N`.

Serves on loopback what `web/pages.parquet` of a world table says. Images are drawn when they are
asked for, so the world on disk is only text.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import http.server
import io
import struct
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput
from pipelines.lake import manifest
from pipelines.world.crawl import PAGES_SCHEMA
from pipelines.world.render import jpeg
from pipelines.world.scenes import Scene
from pipelines.world.spec import WorldParameters

HOST = "127.0.0.1"
DEFAULT_IMAGE_PATH = "/default.jpg"

_DRIP_PAUSE_SECONDS = 0.2
_ENDLESS_BYTES = 1 << 30
_BOMB_SIDE = 15_000


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512
    allow_reuse_address = True

    def __init__(self, pages: pa.Table, port: int) -> None:
        columns = (pages[name].to_pylist() for name in ("path", "scene", "fault"))
        self.pages = {path: (scene, fault) for path, scene, fault in zip(*columns, strict=True)}
        self.stopping = threading.Event()
        pixel_bomb()  # Now, not by several threads at once.
        super().__init__((HOST, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle, as a downloader with limits does, is no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # The head and the body leave in one packet.
    server: _Server

    def do_GET(self) -> None:
        if self.path == DEFAULT_IMAGE_PATH:
            return self._send(200, _default_image())
        page = self.server.pages.get(self.path)
        if page is None:
            return self._send(404, b"not found", "text/plain")
        scene, fault = page
        match fault:
            case "not_found":
                self._send(404, b"not found", "text/plain")
            case "server_error":
                self._send(500, b"error", "text/plain")
            case "default_image":
                self._send(302, b"", location=DEFAULT_IMAGE_PATH)
            case "html_as_image":
                self._send(200, b"<!doctype html><title>Gone</title><p>This picture has moved.</p>")
            case "oversized":
                self._oversized()
            case "slow_drip":
                self._drip(_image(scene))
            case "truncated_jpeg":
                whole = _image(scene)
                self._send(200, whole[: len(whole) * 6 // 10])
            case _:
                self._send(200, _image(scene))

    def _send(self, status: int, body: bytes, kind: str = "image/jpeg", location: str | None = None) -> None:
        self._head(status, len(body), kind, location)
        self.wfile.write(body)

    def _head(
        self, status: int, length: int | None, kind: str = "image/jpeg", location: str | None = None
    ) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        if location is not None:
            self.send_header("Location", location)
        if length is not None:
            self.send_header("Content-Length", str(length))
        else:
            self.send_header("Connection", "close")
        self.end_headers()

    def _oversized(self) -> None:
        """By the path: a length that is announced, a body without an end, or a small file of many pixels."""
        kind = zlib.crc32(self.path.encode()) % 3
        if kind == 0:
            return self._send(200, pixel_bomb(), "image/png")
        self._head(200, _ENDLESS_BYTES if kind == 1 else None)
        block = b"\xff\xd8\xff\xe0".ljust(65_536, b"\0")
        for _ in range(_ENDLESS_BYTES // len(block)):
            if self.server.stopping.is_set():
                return
            self.wfile.write(block)

    def _drip(self, body: bytes) -> None:
        self._head(200, len(body))
        self.wfile.write(body[:64])
        for at in range(64, len(body)):
            self.wfile.write(body[at : at + 1])
            self.wfile.flush()
            if self.server.stopping.wait(_DRIP_PAUSE_SECONDS):
                break
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


def _image(scene: str) -> bytes:
    return jpeg(Scene.model_validate_json(scene))


@functools.lru_cache(maxsize=1)
def _default_image() -> bytes:
    """The one picture that the world's hosts show in place of those they no longer have."""
    image = Image.new("RGB", (96, 96), "#dddddd")
    draw = ImageDraw.Draw(image)
    draw.line((0, 0, 95, 95), fill="#999999", width=3)
    draw.line((0, 95, 95, 0), fill="#999999", width=3)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


@functools.lru_cache(maxsize=1)
def pixel_bomb() -> bytes:
    """A PNG of some 120 kB that decodes to 15000 x 15000 pixels."""
    data = zlib.compress(bytes((_BOMB_SIDE // 8 + 1) * _BOMB_SIDE), 1)
    head = struct.pack(">IIBBBBB", _BOMB_SIDE, _BOMB_SIDE, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


@contextlib.contextmanager
def serving(world: Path, port: int) -> Iterator[int]:
    """Serve a world table on 127.0.0.1 while the context lasts; yield the port (a free one for 0).

    Raises:
        BadInput: the port is taken, or the table is not a world.
    """
    pages = pq.ParquetFile(manifest.file(world, "pages.parquet")).read(PAGES_SCHEMA.names)
    try:
        server = _Server(pages, port)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise BadInput(
            f"the world's web server cannot use port {port}: {error.strerror}", where=f"{HOST}:{port}",
            remedy="end the process that uses it (another run of this crawl?), or make the world with another port",
        ) from None  # fmt: skip
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.world.server", description="Serve a world table."
    )
    parser.add_argument("world", type=Path, metavar="WORLD", help="the folder of a world table")
    parser.add_argument(
        "--port", type=int, default=WorldParameters().port, help="port on 127.0.0.1 (default: %(default)s)"
    )
    arguments = parser.parse_args()
    try:
        with serving(arguments.world, arguments.port) as port:
            print(f"http://{HOST}:{port}/", file=sys.stderr, flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT_EXIT_CODE)


if __name__ == "__main__":
    main()
