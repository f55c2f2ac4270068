"""A process that has imported the slow packages already, and forks a new one for each job.

Importing torch, transformers and DeepSpeed costs a core 13 to 19 seconds: much on a laptop, where a run is a
dozen jobs of a minute at most. One server per launching process imports them once.
A job still is a process group of its own, with its own environment, log and exit code.

The launcher writes one request to the server's socket, with the write end of a pipe; the server answers through the pipe:
the process id in one line, the exit code in the next. A pipe that ends early means that the server died.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

_REQUEST_BYTES = 1 << 20
_DEVICES = ("/dev/nvidiactl", "/dev/kfd")
"""A process that has spoken to a GPU's driver cannot be forked, and importing may speak to it."""


def usable() -> bool:
    """Whether this machine's jobs can be forked from a warm process: Linux, and no GPU."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        # Another system, or a sandbox that forbids it.
        return False
    return not any(Path(device).exists() for device in _DEVICES)


class ForkedJob:
    """A job of the server, with the part of `subprocess.Popen` that a launcher needs."""

    def __init__(self, answers: int) -> None:
        self._answers = os.fdopen(answers, encoding="ascii")
        self.returncode: int | None = None
        line = self._answers.readline()
        if not line:
            raise OSError("the warm process ended before it had started the job")
        self.pid = int(line)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the job runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end.

        Raises:
            subprocess.TimeoutExpired: the job still runs after `timeout` seconds.
        """
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._answers, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            # Without a code the server is gone, and nobody can say how its child ended.
            self.returncode = int(self._answers.readline() or -signal.SIGKILL)
            self._answers.close()
        return self.returncode


class WarmServer:
    """The server as the launcher sees it: started with the first job, ended with the launching process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def start(
        self, module: str, arguments: Sequence[str], *, imports: Sequence[str], ranks: int,
        environment: Mapping[str, str], log: int,
    ) -> ForkedJob:  # fmt: skip
        """Run `python -m module arguments...` in a new session, as `ranks` processes of torchrun's agent if more than one.

        `log` is the file descriptor that gets its output.
        """
        request = json.dumps(
            {
                "module": module, "arguments": list(arguments), "imports": list(imports), "ranks": ranks,
                "environment": dict(environment), "folder": str(Path.cwd()),
            }
        ).encode()  # fmt: skip
        if len(request) > _REQUEST_BYTES:
            raise ValueError(f"a request of {len(request):,} bytes")
        answers, answer = os.pipe()
        try:
            with self._lock:
                try:
                    self._send(environment, request, [answer, log])
                except ConnectionError:
                    # The server died since; a new one takes its place.
                    self._end()
                    self._send(environment, request, [answer, log])
        finally:
            os.close(answer)
        return ForkedJob(answers)

    @property
    def pid(self) -> int | None:
        """The server's process, once there is one."""
        return self._process.pid if self._process is not None else None

    def close(self) -> None:
        """End the server, which else ends with this process. Its jobs go on."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._process is not None and self._socket is not None:
            self._socket.close()
            self._process.wait()

    def _send(self, environment: Mapping[str, str], request: bytes, descriptors: Sequence[int]) -> None:
        control = self._running(environment)
        control.sendall(len(request).to_bytes(4, "big"))
        socket.send_fds(control, [b"f"], descriptors)
        control.sendall(request)

    def _running(self, environment: Mapping[str, str]) -> socket.socket:
        if self._process is None or self._process.poll() is not None or self._socket is None:
            self._socket, theirs = socket.socketpair()
            with theirs:
                # Started with a job's environment: OpenMP reads its settings when torch is imported.
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(theirs.fileno())], pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL, env=dict(environment), start_new_session=True,
                )  # fmt: skip
        return self._socket


SERVER = WarmServer()
"""The one of this process."""


def serve(control: socket.socket) -> None:
    """Fork a job for each request, and tell how it ended; return when the launcher is gone."""
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                selector.unregister(key.fd)
                _tell_the_end(key.fd, *key.data)
            elif (request := _received(control)) is not None:
                _fork(selector, *request)
            else:
                return


def _received(control: socket.socket) -> tuple[dict[str, Any], int, int] | None:
    size = int.from_bytes(control.recv(4, socket.MSG_WAITALL), "big")
    if not size:
        return None
    _, descriptors, _, _ = socket.recv_fds(control, 1, 2)
    request = control.recv(size, socket.MSG_WAITALL)
    return json.loads(request), descriptors[0], descriptors[1]


def _fork(selector: selectors.BaseSelector, request: dict[str, Any], answer: int, log: int) -> None:
    # What the imports have to say belongs in the log of the job that wanted them.
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    for name in request["imports"]:
        # Where this fails the job fails of it too, in words that reach its log.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    child = os.fork()
    if child == 0:
        # No `with`, no return: nothing of the server's may run in the child, and none of its pipes stay open.
        for key in list(selector.get_map().values()):
            for descriptor in (key.fd, *([key.data[1]] if key.data is not None else [])):
                os.close(descriptor)
        selector.close()
        # Told from here: whoever knows the process may send a signal to its group.
        os.setsid()
        os.write(answer, f"{os.getpid()}\n".encode())
        os.close(answer)
        _run(request)
    selector.register(os.pidfd_open(child), selectors.EVENT_READ, (child, answer))


def _tell_the_end(descriptor: int, child: int, answer: int) -> None:
    _, status = os.waitpid(child, 0)
    os.close(descriptor)
    # The launcher may be gone, or no longer ask.
    with contextlib.suppress(BrokenPipeError):
        os.write(answer, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os.close(answer)


def _run(request: dict[str, Any]) -> NoReturn:
    """Be the process that `python -m module` would have been, and end."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        sys.path[0] = request["folder"]
        code = _code_of(request["module"], request["arguments"], request["ranks"])
    except BaseException:  # noqa: BLE001 - nothing may reach the server's loop, of which this is a copy
        traceback.print_exc()
    finally:
        # `os._exit` spares what the server had registered; a job's own threads and handlers end as always.
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _code_of(module: str, arguments: Sequence[str], ranks: int) -> int:
    try:
        if ranks > 1:
            _under_torchrun(module, arguments, ranks)
        else:
            run_module(module, arguments, threads=None)
    except SystemExit as exit_:
        if exit_.code is None or isinstance(exit_.code, int):
            return exit_.code or 0
        print(exit_.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return 128 + signal.SIGINT
    return 0


def _under_torchrun(module: str, arguments: Sequence[str], ranks: int) -> None:
    """What `torchrun --standalone` does, except that its agent forks the ranks."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=ranks, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        run_id=str(time.time_ns()), max_restarts=0, start_method="fork",
    )  # fmt: skip
    # As torchrun has it: ranks that share a machine do not each take all of its cores.
    threads = int(os.environ.setdefault("OMP_NUM_THREADS", "1"))
    elastic_launch(config, run_module)(module, list(arguments), threads)


def run_module(module: str, arguments: Sequence[str], threads: int | None) -> None:
    """`python -m module arguments...` in this process, on so many threads."""
    if (wanted := threads or int(os.environ.get("OMP_NUM_THREADS", "0"))) and "torch" in sys.modules:
        # The variable was read when torch was imported, for another job.
        sys.modules["torch"].set_num_threads(wanted)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
