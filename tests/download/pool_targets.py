"""Workers for the pool's tests; they run in processes of their own, which start fast: imports stand where they are needed."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
import urllib.request
from multiprocessing.connection import Connection
from pathlib import Path


def doubling(connection: Connection, settings: str) -> None:
    """Doubles numbers. Kills itself, falls silent or fails once per mark in the folder `settings`."""
    while True:
        try:
            task = json.loads(connection.recv_bytes())
        except EOFError:
            return
        mark = Path(settings) / f"{task['number']}"
        if mark.exists():
            kind = mark.read_text()
            if not kind.startswith("always"):
                mark.unlink()
            if kind.endswith("killed"):
                connection.send_bytes(json.dumps({"kind": "rows", "rows": 1}).encode())
                os.kill(os.getpid(), signal.SIGKILL)
            if kind.endswith("silent"):
                time.sleep(60)
            if kind.endswith("full"):
                answer = {"kind": "error", "errno": errno.ENOSPC, "text": "No space left on device"}
                connection.send_bytes(json.dumps(answer).encode())
        connection.send_bytes(json.dumps({"kind": "done", "result": 2 * task["number"]}).encode())


def taking_turns(file: str, limit: int, url: str, times: int) -> None:
    """Fetch a URL in turns with a host, over and over."""
    from pipelines.download.hosts import Hosts

    hosts = Hosts(Path(file), limit)
    for _ in range(times):
        with hosts.turn("site.example", 1), urllib.request.urlopen(url) as response:
            response.read()


def holding_a_turn(file: str, connection: Connection) -> None:
    """Take a turn and never give it back."""
    from pipelines.download.hosts import Hosts

    with Hosts(Path(file), 2).turn("site.example", 1):
        connection.send_bytes(b"held")
        time.sleep(60)


MARKS = "MARKS_OF_A_TEST"
_WRITES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")


def killed_while_writing(connection: Connection, settings: str) -> None:
    """The download worker. For each shard, the file of its number says at which of its writes it ends, once each."""
    from pipelines.download import worker

    marks = Path(os.environ[MARKS])
    count = 0
    shard = ""

    class Watched:
        """The connection, of which a task's number is read in passing."""

        def recv_bytes(self) -> bytes:
            nonlocal count, shard
            task = connection.recv_bytes()
            count, shard = 0, str(json.loads(task)["shard"])
            return task

        def send_bytes(self, message: bytes) -> None:
            connection.send_bytes(message)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        writes = event in _WRITES or (
            event == "open" and isinstance(arguments[1], str) and "w" in arguments[1]
        )
        if not shard or not writes or str(marks) in str(arguments[0]):
            return
        count += 1
        wanted = (marks / shard).read_text().split()
        if wanted and count == int(wanted[0]):
            (marks / shard).write_text(" ".join(wanted[1:]))
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    worker.main(Watched(), settings)  # type: ignore[arg-type]


def dying_of_rows(connection: Connection, settings: str) -> None:
    """The download worker, whose decoder crashes on some images, and which is killed while it fetches /deadly."""
    import io
    from typing import Any

    from pipelines.download import guard, image, worker
    from tests.download.hostile_server import CRASHES_DECODERS

    opened, hop = image.Image.open, guard.GuardedOpener._hop

    def crashing(stream: io.BytesIO, **keywords: Any) -> Any:
        if stream.getvalue().endswith(CRASHES_DECODERS):
            os.kill(os.getpid(), signal.SIGSEGV)
        return opened(stream, **keywords)

    def killing(self: Any, goal: Any, *arguments: Any, **keywords: Any) -> Any:
        if goal.path.startswith("/deadly"):
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        return hop(self, goal, *arguments, **keywords)

    image.Image.open = crashing  # type: ignore[assignment]
    guard.GuardedOpener._hop = killing  # type: ignore[method-assign]
    worker.main(connection, settings)


def with_names(connection: Connection, settings: str) -> None:
    """The download worker, for whom every name is this machine's."""
    import socket

    from pipelines.download import worker

    socket.getaddrinfo = lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]  # type: ignore
    worker.main(connection, settings)


def without_a_resolver(connection: Connection, settings: str) -> None:
    """The download worker, on a machine that is off the network."""
    import socket
    from typing import Any

    from pipelines.download import web, worker

    def nobody_there(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    socket.getaddrinfo = nobody_there
    web._OUTAGE_PAUSE_SECONDS = 0.1
    worker.main(connection, settings)
