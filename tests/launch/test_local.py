"""A job that is cancelled on this machine has its time to save, whatever torchrun would leave it."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from pipelines.errors import BadInput
from pipelines.launch import warm
from pipelines.launch.local import (
    AGENT_GRACE_VARIABLE,
    GRACE_SECONDS,
    GRACE_VARIABLE,
    LocalLauncher,
    grace_seconds,
)
from pipelines.launch.spec import JobSpec, Report
from pipelines.stage import StageSpec
from tests.launch.slow_save import SAVING_SECONDS


class Cancelled(Exception):
    """What a cancelled run raises where it waits for a job."""


def cancel(folder: Path, *, forked: bool, ranks: int = 2) -> None:
    """Start the ranks, and cancel the job once all of them wait."""
    ready = 0

    def on_report(report: Report) -> None:
        nonlocal ready
        ready += report.get("text") == "ready"
        if ready == ranks:
            raise Cancelled

    job = JobSpec(
        name="slow", module="tests.launch.slow_save", spec=StageSpec(output=folder, processes=ranks),
        distributed=True, imports=("torch",) if forked else (),
    )  # fmt: skip
    with pytest.raises(Cancelled):
        LocalLauncher().run(job, on_report)


@pytest.mark.parametrize(("forked", "ranks"), [(False, 2), (True, 2), (True, 1)])
def test_a_save_that_takes_longer_than_torchrun_waits_is_whole(
    forked: bool, ranks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if forked and not warm.usable():
        pytest.skip("no pidfd, or a GPU")
    monkeypatch.setenv(AGENT_GRACE_VARIABLE, str(SAVING_SECONDS // 3))

    cancel(tmp_path, forked=forked, ranks=ranks)

    assert {path.name for path in tmp_path.glob("saved-*")} == {f"saved-{rank}" for rank in range(ranks)}
    # A forked job's processes have the command line of the process that they were forked from.
    assert forked or is_gone(tmp_path)


def test_after_its_time_nothing_of_a_job_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GRACE_VARIABLE, "1")

    cancel(tmp_path, forked=False)

    assert len(list(tmp_path.glob("ready-*"))) == 2
    assert not list(tmp_path.glob("saved-*"))
    assert is_gone(tmp_path)


def is_gone(folder: Path) -> bool:
    """Whether the job's processes end, which takes a killed one a moment."""
    deadline = time.monotonic() + 20
    while still_there(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not still_there(folder)


def still_there(folder: Path) -> list[psutil.Process]:
    """Processes of the job."""
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if any(str(folder) in argument for argument in one.info["cmdline"] or [])
        and one.status() != psutil.STATUS_ZOMBIE
    ]


def test_a_time_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GRACE_VARIABLE, "half a minute")
    with pytest.raises(BadInput, match=GRACE_VARIABLE):
        grace_seconds()
    monkeypatch.delenv(GRACE_VARIABLE)
    assert grace_seconds() == GRACE_SECONDS
