"""SIGKILL at any moment: no hang, no torn file, and after a rerun the bytes of an undisturbed run.

`test_kills.py` kills at chosen steps; here the moments are drawn. A failure prints its seed: `KILL_SEED=... pytest` draws them again.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipelines.download.spec import STAGE, DownloadSpec
from pipelines.lake import manifest
from pipelines.stage import execute
from tests.download.conftest import CrawlMaker
from tests.download.hostile_server import HostileServer
from tests.download.test_download_stage import children, digests, is_running, start

ROUNDS, MOST_ROUNDS = 3, 20
"""More than three only where none was met at work: it is done sooner on one day than on another."""
ROWS, ROWS_PER_SHARD = 90, 5
PATIENCE = 240.0
"""Seconds in which a run ends on however busy a machine; one that hangs does not."""

pytestmark = pytest.mark.slow


class Moments:
    """Draws when and whom to kill, within the time in which the undisturbed run was at work."""

    def __init__(self) -> None:
        seed = int(os.environ.get("KILL_SEED") or random.SystemRandom().randrange(2**32))
        logging.getLogger(__name__).warning("KILL_SEED=%d", seed)  # shown by pytest where the test fails
        self.random = random.Random(seed)
        self.working = 0.0

    def wait(self, server: HostileServer, run: subprocess.Popen[bytes], before: int) -> None:
        """Until the run's first request, and then for a random part of the time that the work takes."""
        while run.poll() is None and server.hits.total() == before:
            time.sleep(0.002)
        until = time.monotonic() + self.random.uniform(0, 1.1 * self.working)
        while run.poll() is None and time.monotonic() < until:
            time.sleep(0.002)


@pytest.fixture
def moments() -> Moments:
    return Moments()


@pytest.fixture
def crawl(server: HostileServer, maker: CrawlMaker) -> Path:
    rows: list[str | None] = [f"{server.origin}/ok/{at}.jpg" for at in range(ROWS)]
    for place, path in ((7, "/missing.jpg"), (31, "/truncated.jpg"), (60, "/html.jpg")):
        rows[place] = server.origin + path
    return maker.crawl(rows)


def spec(maker: CrawlMaker, server: HostileServer, crawl: Path, output: str) -> DownloadSpec:
    # Time-outs that no load on the machine reaches, for their reasons would be bytes.
    return maker.spec(
        crawl, server.server_port, output, threads=4, rows_per_shard=ROWS_PER_SHARD, timeout_seconds=60, total_seconds=60,
    )  # fmt: skip


@pytest.fixture
def undisturbed(server: HostileServer, maker: CrawlMaker, crawl: Path, moments: Moments) -> dict[str, str]:
    """The digests of the files of a run that nothing killed; `moments` learns how long it worked."""
    wanted = spec(maker, server, crawl, "undisturbed")
    run = start(wanted, maker.folder)
    while run.poll() is None and not server.hits.total():
        time.sleep(0.002)
    began = time.monotonic()
    words = run.communicate(timeout=PATIENCE)[1].decode()
    assert run.returncode == 0, words
    moments.working = time.monotonic() - began
    return digests(wanted.output)


def workers(pid: int) -> list[int]:
    """The run's worker processes, without Python's own helper."""
    try:
        return [
            child for child in children(pid) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_killed_at_any_moment_changes_no_byte(
    server: HostileServer, maker: CrawlMaker, crawl: Path, moments: Moments, undisturbed: dict[str, str]
) -> None:
    killed = 0
    for number in range(MOST_ROUNDS):
        wanted = spec(maker, server, crawl, f"round-{number}")
        before = server.hits.total()
        run = start(wanted, maker.folder)
        # A shard whose workers ended three times is given up, so no round kills as often.
        for _ in range(2):
            moments.wait(server, run, before)
            alive = workers(run.pid)
            killed += bool(alive) and kill(moments.random.choice(alive))
        words = run.communicate(timeout=PATIENCE)[1].decode()
        assert run.returncode == 0, words
        assert digests(wanted.output) == undisturbed
        if killed and number + 1 >= ROUNDS:
            break
    assert killed, "no run was met at work"


def test_a_stage_killed_at_any_moment_goes_on_to_the_same_bytes(
    server: HostileServer, maker: CrawlMaker, crawl: Path, moments: Moments, undisturbed: dict[str, str]
) -> None:
    killed = 0
    for number in range(ROUNDS):
        wanted = spec(maker, server, crawl, f"round-{number}")
        for _ in range(2):
            before = server.hits.total()
            run = start(wanted, maker.folder)
            moments.wait(server, run, before)
            orphans = workers(run.pid)
            killed += kill(run.pid)
            run.communicate(timeout=PATIENCE)
            # What is published is whole at any moment; and the next run may meet workers of this one.
            if manifest.exists(wanted.output):
                assert digests(wanted.output) == undisturbed
        execute(STAGE, wanted)
        assert digests(wanted.output) == undisturbed
        until = time.monotonic() + PATIENCE
        while any(map(is_running, orphans)):
            assert time.monotonic() < until, "a worker outlived its run"
            time.sleep(0.05)
    assert killed, "no run was met at work"
