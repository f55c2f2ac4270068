"""In a pod: runs the stage, torchrun around it where it has ranks, and reports through the channel.

`python -m pipelines.launch.worker`; everything it needs stands in the environment (`contract.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import psutil

from pipelines.declaration import PART_COUNT_VARIABLE, PART_INDEX_VARIABLE
from pipelines.errors import BAD_INPUT_EXIT_CODE, INTERRUPTED_EXIT_CODE
from pipelines.launch.channel import Writer
from pipelines.launch.contract import (
    CHANNEL_VARIABLE,
    INDEX_VARIABLE,
    JOIN_VARIABLE,
    MODULE_VARIABLE,
    NODES_VARIABLE,
    PARTS_VARIABLE,
    PEER_LOST_EXIT_CODE,
    RANKS_VARIABLE,
    SCRATCH_VARIABLE,
    SPEC_VARIABLE,
)
from pipelines.launch.spec import Report
from pipelines.progress import FILE_VARIABLE, QUIET_VARIABLE

REPORT_SECONDS = (1.0, 10.0)
"""Time between two files of the channel: at first, and after a minute."""
LAST_WORDS = 60
LOG_LINES_A_REPORT = 200
"""More lines than these between two files are left out of the channel; the pod's own log has all."""
LAST_REPORT_SECONDS = 15.0
ASKED_TO_STOP = 128 + signal.SIGTERM

PEER_LOST = re.compile(
    r"connection (was )?(reset|closed|refused)|closed by (the )?peer|remote peer|broken pipe|"
    r"RendezvousConnectionError|DistNetworkError|DistStoreError|DistBackendError|NCCL (timeout|error)|"
    r"Socket Timeout|ECONNRESET|heartbeat.*lost",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Task:
    """What this pod is to do."""

    module: str
    spec: str
    channel: str
    scratch: Path
    index: int
    nodes: int
    ranks: int | None
    parts: int
    join_seconds: int

    @classmethod
    def of_environment(cls) -> Task:
        get = os.environ.get
        return cls(
            os.environ[MODULE_VARIABLE], os.environ[SPEC_VARIABLE], os.environ[CHANNEL_VARIABLE],
            Path(os.environ[SCRATCH_VARIABLE]), int(get(INDEX_VARIABLE) or 0), int(get(NODES_VARIABLE) or 1),
            int(os.environ[RANKS_VARIABLE]) if get(RANKS_VARIABLE) else None,
            int(get(PARTS_VARIABLE) or 1), int(get(JOIN_VARIABLE) or 600),
        )  # fmt: skip

    def command(self, spec_path: Path) -> list[str]:
        if self.ranks is None:
            return [sys.executable, "-m", self.module, str(spec_path)]
        return [
            sys.executable, "-m", "torch.distributed.run",
            f"--nnodes={self.nodes}", f"--node-rank={self.index}", f"--nproc-per-node={self.ranks}",
            f"--master-addr={os.environ['MASTER_ADDR']}", f"--master-port={os.environ['MASTER_PORT']}",
            f"--rdzv-conf=timeout={self.join_seconds}", "--max-restarts=0", "-m", self.module, str(spec_path),
        ]  # fmt: skip


class _Log:
    """The stage's output: to the pod's own log as it comes, and kept for the channel."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.last: deque[str] = deque(maxlen=LAST_WORDS)
        self._new: deque[str] = deque(maxlen=LOG_LINES_A_REPORT)
        self._count = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._copy, args=(stream,), daemon=True)
        self._thread.start()

    def _copy(self, stream: IO[bytes]) -> None:
        for line in stream:
            text = line.decode("utf-8", "replace")[:4000]
            sys.stdout.write(text)
            sys.stdout.flush()
            with self._lock:
                self.last.append(text)
                self._new.append(text)
                self._count += 1

    def join(self) -> None:
        self._thread.join(timeout=5)

    def take(self) -> str:
        """The lines that came since the last call."""
        with self._lock:
            left_out = self._count - len(self._new)
            text = (f"({left_out} lines left out; the pod's log has them)\n" if left_out else "") + "".join(
                self._new
            )
            self._new.clear()
            self._count = 0
            return text


class Worker:
    """One run of the stage in this pod."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._writer = Writer(task.channel, task.index)
        self._progress = task.scratch / f"progress-{task.index}.jsonl"
        self._read_to = 0
        self._end: Report | None = None
        self._stopping = False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Run the stage to its end; return the exit code of the pod."""
        task = self._task
        signal.signal(signal.SIGTERM, self._stop)
        spec_path = task.scratch / f"spec-{task.index}.json"
        spec_path.write_text(task.spec)
        self._progress.write_text("")
        if task.nodes > 1 and not self._resolved(os.environ["MASTER_ADDR"]):
            if self._stopping:
                words = "it was asked to stop while it waited for the first node"
                self._writer.write([{"kind": "end", "code": ASKED_TO_STOP, "text": words}])
                return ASKED_TO_STOP
            words = f"the first node {os.environ['MASTER_ADDR']} was not found in {task.join_seconds} s"
            self._writer.write([{"kind": "end", "code": PEER_LOST_EXIT_CODE, "text": words}])
            return PEER_LOST_EXIT_CODE
        self._process = subprocess.Popen(
            task.command(spec_path), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=self._environment(), start_new_session=True,
        )  # fmt: skip
        if self._stopping:
            self._stop()
        log = _Log(cast(IO[bytes], self._process.stdout))
        started = last = time.monotonic()
        self._writer.write([{"kind": "started"}])
        while self._process.poll() is None:
            time.sleep(0.1)
            pause = REPORT_SECONDS[time.monotonic() - started > 60]
            if time.monotonic() - last >= pause:
                last = time.monotonic()
                self._report(log)
        log.join()
        code = self._code(self._process.returncode, log)
        self._last_report(log, code)
        return code

    def _resolved(self, host: str) -> bool:
        """Wait until the first node has an address: pods of a group may start minutes apart."""
        deadline = time.monotonic() + self._task.join_seconds
        while time.monotonic() < deadline and not self._stopping:
            with contextlib.suppress(OSError):
                socket.getaddrinfo(host, None)
                return True
            time.sleep(0.5)
        return False

    def _environment(self) -> dict[str, str]:
        environment = {**os.environ, FILE_VARIABLE: str(self._progress), QUIET_VARIABLE: "1"}
        if self._task.parts > 1:
            environment[PART_INDEX_VARIABLE] = str(self._task.index)
            environment[PART_COUNT_VARIABLE] = str(self._task.parts)
        return environment

    def _stop(self, *_: object) -> None:
        """Ask the ranks themselves: torchrun would kill them after half a minute, checkpoint or not."""
        self._stopping = True
        if self._process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            ranks = psutil.Process(self._process.pid).children() if self._task.ranks else []
            for process in ranks or [psutil.Process(self._process.pid)]:
                process.terminate()

    def _records(self) -> list[Report]:
        with self._progress.open("rb") as stream:
            stream.seek(self._read_to)
            whole = stream.read().rpartition(b"\n")
        self._read_to += len(whole[0]) + len(whole[1])
        records = [json.loads(line) for line in whole[0].splitlines()]
        for record in records:
            if record["kind"] == "end":
                self._end = self._end or record
        return [record for record in records if record["kind"] != "end"]

    def _report(self, log: _Log) -> None:
        records = self._records()
        text = log.take()
        if text and self._task.index == 0:
            records.append({"kind": "log", "text": text})
        self._writer.write(records)

    def _last_report(self, log: _Log, code: int) -> None:
        self._report(log)
        words = "".join(log.last).strip() if self._end is None else self._end["text"]
        ended = time.monotonic()
        record = {"kind": "end", "code": code, "text": words[-8000:]}
        written = self._writer.write([record])
        while not written and time.monotonic() - ended < LAST_REPORT_SECONDS:
            time.sleep(2)
            written = self._writer.write([])

    def _code(self, returned: int, log: _Log) -> int:
        self._records_end()
        if self._end is not None:
            # torchrun exits with 1 whatever the code of its ranks was.
            return int(self._end["code"])
        code = 128 - returned if returned < 0 else returned
        if code in (0, BAD_INPUT_EXIT_CODE, INTERRUPTED_EXIT_CODE):
            return code
        if self._stopping:
            return ASKED_TO_STOP
        if self._task.nodes > 1 and PEER_LOST.search("".join(log.last)):
            return PEER_LOST_EXIT_CODE
        return code

    def _records_end(self) -> None:
        """Look whether the stage left its exit code, without losing what is to be reported."""
        with self._progress.open("rb") as stream:
            stream.seek(self._read_to)
            for line in stream.read().splitlines():
                if line.endswith(b"}") and (record := json.loads(line))["kind"] == "end":
                    self._end = self._end or record


if __name__ == "__main__":
    sys.exit(Worker(Task.of_environment()).run())
