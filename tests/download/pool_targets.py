"""Workers for the pool's tests; they run in processes of their own."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
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
