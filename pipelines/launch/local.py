"""Launching on this machine: a subprocess, under torchrun where a job has ranks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

import psutil

from pipelines.errors import (
    BAD_INPUT_EXIT_CODE,
    INTERRUPTED_EXIT_CODE,
    BadInput,
    Interrupted,
    StageFailed,
)
from pipelines.lake import cache
from pipelines.lake.manifest import write_atomically
from pipelines.launch import warm
from pipelines.launch.spec import JobSpec, Report, Usage
from pipelines.launch.warm import ForkedJob
from pipelines.progress import FILE_VARIABLE, QUIET_VARIABLE

POLL_SECONDS = 0.2
GRACE_VARIABLE = "LOCAL_GRACE_SECONDS"
GRACE_SECONDS = 120
"""How long a cancelled job may take to save its state before it is killed, where the variable does not say; as in a pod."""
AGENT_GRACE_VARIABLE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""How long torchrun waits for the other ranks once one has ended; without it, half a minute."""
WAITING = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "0"}
"""How long OpenMP's threads spin before they sleep (GNU's, Intel's). The small models' steps are many short parallel
parts: with no spinning at all two threads are as slow as one. With the default's long spinning a training
beside another busy process took sixty times as long; with this, not twice."""
LAST_WORDS = 40
"""Lines of a failed job's log that its error repeats."""


class LocalLauncher:
    """Runs a job as a process group of its own, of which nothing is left when it was cancelled."""

    def run(self, job: JobSpec, on_report: Callable[[Report], None]) -> Usage:
        started, grace = time.monotonic(), grace_seconds()
        folder = cache.scratch(job.spec.output) / "_launch"
        folder.mkdir(parents=True, exist_ok=True)
        spec_path, log_path, reports = (folder / name for name in ("spec.json", "log.txt", "progress.jsonl"))
        write_atomically(spec_path, job.spec.model_dump_json(indent=1).encode())
        reports.write_text("")
        environment = dict(os.environ, PYTHONUNBUFFERED="1", TOKENIZERS_PARALLELISM="false")
        for name, value in WAITING.items():
            environment.setdefault(name, value)
        environment[FILE_VARIABLE] = str(reports.resolve())
        environment[QUIET_VARIABLE] = "1"
        environment.setdefault(AGENT_GRACE_VARIABLE, str(grace))
        with log_path.open("wb") as log:
            process = _started(job, spec_path, environment, log)
            end: Report | None = None
            lines = _tail(reports)
            try:
                running = True
                while running:
                    running = process.poll() is None
                    for report in next(lines):
                        if report["kind"] == "end":
                            end = end or report
                        else:
                            on_report(report)
                    if running:
                        time.sleep(POLL_SECONDS)
            finally:
                _stop(process, agent=_has_agent(job, process), grace=grace)
        code = process.wait()
        if code != 0:
            _fail(job, code if end is None else end["code"], end, log_path)
        return Usage(running_seconds=time.monotonic() - started)


def grace_seconds() -> int:
    """The time that a cancelled job has, as the environment says.

    Raises:
        BadInput: it says no whole number of seconds.
    """
    told = os.environ.get(GRACE_VARIABLE) or str(GRACE_SECONDS)
    if not told.isdecimal():
        raise BadInput(
            f"{told!r} is no whole number of seconds", where=f"the environment variable {GRACE_VARIABLE}",
            remedy=f"say how long a cancelled job may take to save its state, or unset it for {GRACE_SECONDS}",
        )  # fmt: skip
    return int(told)


def _started(
    job: JobSpec, spec_path: Path, environment: dict[str, str], log: BinaryIO
) -> subprocess.Popen[bytes] | ForkedJob:
    """The job's process, leader of a session of its own; forked from a warm one where importing would take seconds."""
    if job.imports and warm.usable():
        return warm.SERVER.start(
            job.module, [str(spec_path)], imports=job.imports,
            ranks=job.spec.processes if job.distributed else 1, environment=environment, log=log.fileno(),
        )  # fmt: skip
    return subprocess.Popen(
        command(job, spec_path), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        env=environment, start_new_session=True,
    )  # fmt: skip


def command(job: JobSpec, spec_path: Path) -> list[str]:
    """The argument list of the job: never a shell string."""
    if not job.distributed:
        return [sys.executable, "-m", job.module, str(spec_path)]
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={job.spec.processes}", "-m", job.module, str(spec_path),
    ]  # fmt: skip


def _tail(path: Path) -> Iterator[list[Report]]:
    """Yield, each time it is asked, the whole lines that have come since."""
    with path.open("r", encoding="utf-8") as stream:
        partial = ""
        while True:
            partial += stream.read()
            *lines, partial = partial.split("\n")
            yield [json.loads(line) for line in lines]


def _has_agent(job: JobSpec, process: subprocess.Popen[bytes] | ForkedJob) -> bool:
    """Whether the process is torchrun's agent; a forked job that is one rank is that rank itself."""
    return job.distributed and not (isinstance(process, ForkedJob) and job.spec.processes == 1)


def _stop(process: subprocess.Popen[bytes] | ForkedJob, *, agent: bool, grace: float) -> None:
    """Ask the job to stop, and kill what is left of it after so many seconds.

    Asked are the ranks themselves: torchrun, asked to stop, would kill them in the midst of a long save. Nobody asks the
    processes below them: a rank that loses those that read its data can save nothing.
    """
    everyone: list[psutil.Process] = []
    try:
        if process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                leader = psutil.Process(process.pid)
                everyone = [leader, *leader.children(recursive=True)]
                for asked in (leader.children() if agent else []) or [leader]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        asked.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace)
    finally:
        # torchrun gives each rank a session of its own, so the group alone would leave them behind.
        for left in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _fail(job: JobSpec, code: int, end: Report | None, log_path: Path) -> NoReturn:
    with log_path.open(encoding="utf-8", errors="replace") as stream:
        words = "".join(deque(stream, maxlen=LAST_WORDS)).strip() if end is None else end["text"]
    if code == BAD_INPUT_EXIT_CODE:
        raise BadInput(
            words.removeprefix("error: "), where=log_path, remedy="see above; the full log is here"
        )
    if code == INTERRUPTED_EXIT_CODE:
        raise Interrupted(f"{job.name} saved its state and stopped; run it again to go on. {words}")
    ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    raise StageFailed(f"{job.name} failed ({ended}); the full log is {log_path}\n{words}")
