"""Jobs that a warm process forks are what `python -m` would have started."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.launch import warm
from pipelines.launch.warm import ForkedJob, WarmServer

pytestmark = pytest.mark.skipif(not warm.usable(), reason="no pidfd, or a GPU")

TELL = """
import json, os, sys, threading
if __name__ == "__main__":
    print(json.dumps({
        "arguments": sys.argv[1:], "marked": os.environ.get("MARK"), "folder": os.getcwd(), "parent": os.getppid(),
        "leads": os.getsid(0) == os.getpid(), "imported": "decimal" in sys.modules,
        "package": __spec__.name, "inherited": os.environ.get("INHERITED"),
    }))
"""
LATE = """
import atexit, sys, threading, time
atexit.register(print, "handler")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
sys.exit("last words")
"""
STOPPED = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("ready", flush=True)
time.sleep(60)
"""
POOL = """
import multiprocessing
def twice(number):
    return 2 * number
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(pool.map(twice, [1, 2, 3]))
"""
RANK = r"""
import os, sys, time
import torch, torch.distributed
if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    rank = torch.distributed.get_rank()
    os.write(1, f"rank {rank} of {int(total)}, {torch.get_num_threads()} thread\n".encode())
    if sys.argv[1] == "fail":
        sys.exit(42) if rank == 1 else time.sleep(3600)
    torch.distributed.destroy_process_group()
"""


@pytest.fixture
def server() -> Iterator[WarmServer]:
    started = WarmServer()
    yield started
    started.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in [("tell", TELL), ("late", LATE), ("stopped", STOPPED), ("pool", POOL), ("rank", RANK)]:
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(
    server: WarmServer, module: str, *arguments: str, ranks: int = 1, **more: str
) -> tuple[ForkedJob, Path]:
    log = Path(f"{time.time_ns()}.txt")
    with log.open("wb") as stream:
        job = server.start(
            module, arguments, imports=["decimal", *(["torch"] if ranks > 1 else [])], ranks=ranks,
            environment={**os.environ, **more}, log=stream.fileno(),
        )  # fmt: skip
    return job, log


def told(server: WarmServer, *arguments: str, **more: str) -> dict[str, Any]:
    job, log = start(server, "tell", *arguments, **more)
    assert job.wait(60) == 0, log.read_text()
    return dict(json.loads(log.read_text()))


def test_a_job_has_its_own_arguments_environment_and_session(server: WarmServer, folder: Path) -> None:
    first = told(server, "one", "two", MARK="first", INHERITED="yes")
    second = told(server, MARK="second")
    assert first["arguments"] == ["one", "two"]
    assert (first["marked"], second["marked"]) == ("first", "second")
    # Of the first job's environment, with which the server was started, nothing is left in the second's.
    assert (first["inherited"], second["inherited"]) == ("yes", None)
    assert first["folder"] == str(folder)
    assert first["leads"] and first["imported"]
    assert first["package"] == "tell"
    assert first["parent"] == second["parent"] != os.getpid()


def test_jobs_run_side_by_side(server: WarmServer, folder: Path) -> None:
    waiting, log = start(server, "stopped")
    assert told(server, "meanwhile")["arguments"] == ["meanwhile"]
    assert waiting.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.05)
    while "ready" not in log.read_text():
        time.sleep(0.01)
    os.killpg(waiting.pid, signal.SIGTERM)
    assert waiting.wait(30) == 75


def test_a_killed_job_says_by_which_signal(server: WarmServer, folder: Path) -> None:
    job, _ = start(server, "stopped")
    os.killpg(job.pid, signal.SIGKILL)
    assert job.wait(30) == -signal.SIGKILL


def test_words_threads_and_handlers_come_before_the_end(server: WarmServer, folder: Path) -> None:
    job, log = start(server, "late")
    assert job.wait(30) == 1
    assert log.read_text().split("\n") == ["last words", "thread", "handler", ""]


def test_a_job_may_spawn_processes_of_its_own(server: WarmServer, folder: Path) -> None:
    job, log = start(server, "pool")
    assert job.wait(60) == 0, log.read_text()
    assert log.read_text() == "[2, 4, 6]\n"


def test_a_module_that_is_missing_fails_in_the_log(server: WarmServer, folder: Path) -> None:
    job, log = start(server, "no_such_module")
    assert job.wait(30) == 1
    assert "no_such_module" in log.read_text()


def test_a_dead_server_fails_its_job_and_is_replaced(server: WarmServer, folder: Path) -> None:
    job, _ = start(server, "stopped")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert job.wait(30) == -signal.SIGKILL
    os.killpg(job.pid, signal.SIGKILL)
    assert told(server, "again")["arguments"] == ["again"]


def test_ranks_form_a_group(server: WarmServer, folder: Path) -> None:
    job, log = start(server, "rank", "pass", ranks=2)
    assert job.wait(120) == 0, log.read_text()
    assert {"rank 0 of 2, 1 thread", "rank 1 of 2, 1 thread"} <= set(log.read_text().split("\n"))


def test_a_failed_rank_ends_the_others(server: WarmServer, folder: Path) -> None:
    job, log = start(server, "rank", "fail", ranks=2)
    assert job.wait(120) == 1
    assert re.search(r"exit ?code *: 42", log.read_text())
