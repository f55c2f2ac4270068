"""Ranks that take long to save once they are asked to stop: `python -m tests.launch.slow_save SPEC`, under torchrun."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from pipelines.errors import INTERRUPTED_EXIT_CODE
from pipelines.progress import FILE_VARIABLE

SAVING_SECONDS = 6


def main() -> None:
    """Wait to be asked; then save for some seconds, as long as what reads the data is alive."""
    folder, rank = Path(json.loads(Path(sys.argv[1]).read_text())["output"]), os.environ.get("RANK", "0")
    asked: list[int] = []
    reader = os.fork()
    if reader == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(600)
        os._exit(0)
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    (folder / f"ready-{rank}").touch()
    with Path(os.environ[FILE_VARIABLE]).open("a") as reports:
        reports.write(json.dumps({"kind": "message", "text": "ready"}) + "\n")
    while not asked:
        time.sleep(0.05)
    time.sleep(SAVING_SECONDS)
    if os.waitpid(reader, os.WNOHANG) == (0, 0):
        (folder / f"saved-{rank}").touch()
        os.kill(reader, signal.SIGKILL)
    sys.exit(INTERRUPTED_EXIT_CODE)


if __name__ == "__main__":
    main()
