"""A pool of processes that outlives its workers: one that is killed costs its task another try.

`multiprocessing.Pool` loses the task of a killed worker and waits for it for ever. Here each worker
has a pipe of its own; the pipe's end is noticed, the worker replaced and its task given out again.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from pipelines.errors import StageFailed

TRIES = 3
"""How many workers a task may end, since one of them learned something about it, before the run is given up."""
_POLL_SECONDS = 1.0

Task = dict[str, Any]
Message = dict[str, Any]
"""JSON objects. A worker answers a task with any number of messages; the last has `kind: done`."""


@dataclass(frozen=True)
class Retried:
    """A worker ended, or fell silent, with this task in hand; the task will be done again."""

    task: Task
    why: str


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    task: Task | None = None
    heard: float = 0.0


class Pool:
    """Gives tasks to worker processes, one at a time each.

    A worker is `target(connection, settings)` in a fresh interpreter: it receives tasks as JSON bytes
    until the pipe ends. A message of kind `error` carries `errno` and `text`, and ends the run; one of kind `learned`
    says that the task is done differently from now on, so that what it ended before does not count.
    """

    def __init__(
        self,
        target: Callable[[Connection, str], None],
        settings: str,
        *,
        workers: int,
        silence_seconds: float,
    ) -> None:
        """`silence_seconds`: a worker that sends nothing for so long is killed and replaced."""
        self._target, self._settings = target, settings
        self._context = multiprocessing.get_context("spawn")
        self._silence = silence_seconds
        self._count = workers
        self._workers: list[_Worker] = []
        self._again: deque[Task] = deque()
        self._tries: dict[str, int] = {}

    def run(self, tasks: Iterable[Task]) -> Generator[tuple[Task, Message] | Retried]:
        """Yield each message with its task, and each retry. Workers are gone when this ends, however it does.

        Raises:
            OSError: a worker reported one.
            StageFailed: a task ended `TRIES` workers.
        """
        remaining = iter(tasks)
        try:
            while True:
                self._hand_out(remaining)
                busy = [worker for worker in self._workers if worker.task is not None]
                if not busy:
                    return
                wait([worker.connection for worker in busy], _POLL_SECONDS)
                for worker in busy:
                    yield from self._listen(worker)
        finally:
            for worker in list(self._workers):
                self._end(worker)

    def _hand_out(self, remaining: Iterator[Task]) -> None:
        while True:
            idle = next((worker for worker in self._workers if worker.task is None), None)
            if idle is None and len(self._workers) == self._count:
                return
            task = self._again.popleft() if self._again else next(remaining, None)
            if task is None:
                return
            worker = idle or self._start()
            worker.task, worker.heard = task, time.monotonic()
            # A worker that ended while it was idle: listening to it finds that out.
            with contextlib.suppress(BrokenPipeError):
                worker.connection.send_bytes(json.dumps(task).encode())

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=self._target, args=(theirs, self._settings), daemon=True)
        process.start()
        # With our copy of its end open, the pipe would not end with the worker.
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _listen(self, worker: _Worker) -> Iterator[tuple[Task, Message] | Retried]:
        task = worker.task or {}
        while worker.task is not None and worker.connection.poll():
            try:
                message: Message = json.loads(worker.connection.recv_bytes())
            except (EOFError, OSError):
                worker.process.join()
                yield self._retry(worker, task, _ending(worker.process.exitcode))
                return
            worker.heard = time.monotonic()
            if message["kind"] == "error":
                raise OSError(message["errno"], message["text"])
            if message["kind"] == "learned":
                self._tries.pop(_key(task), None)
            if message["kind"] == "done":
                worker.task = None
            yield task, message
        if worker.task is not None and time.monotonic() - worker.heard > self._silence:
            yield self._retry(worker, task, f"silent for {self._silence:g} s")

    def _retry(self, worker: _Worker, task: Task, why: str) -> Retried:
        self._end(worker)
        key = _key(task)
        self._tries[key] = self._tries.get(key, 0) + 1
        if self._tries[key] == TRIES:
            raise StageFailed(
                f"{task}: its worker process ended {TRIES} times, the last time {why}; see the log above"
            )
        self._again.append(task)
        return Retried(task, why)

    def _end(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _key(task: Task) -> str:
    return json.dumps(task, sort_keys=True)


def _ending(exitcode: int | None) -> str:
    return (
        f"killed by signal {-exitcode}" if exitcode is not None and exitcode < 0 else f"exit code {exitcode}"
    )
