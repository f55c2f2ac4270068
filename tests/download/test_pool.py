"""The pool: every task is done once, whatever becomes of the workers."""

from __future__ import annotations

import errno
import multiprocessing
from pathlib import Path

import pytest

from pipelines.download.pool import Pool, Retried
from pipelines.errors import StageFailed
from tests.download import pool_targets


def results(folder: Path, count: int, *, silence: float = 30.0) -> tuple[dict[int, int], list[Retried]]:
    pool = Pool(pool_targets.doubling, str(folder), workers=2, silence_seconds=silence)
    done: dict[int, int] = {}
    retried = []
    for event in pool.run({"number": number} for number in range(count)):
        if isinstance(event, Retried):
            retried.append(event)
        elif event[1]["kind"] == "done":
            assert event[0]["number"] not in done
            done[event[0]["number"]] = event[1]["result"]
    return done, retried


def test_the_task_of_a_killed_worker_is_done_by_another(tmp_path: Path) -> None:
    (tmp_path / "2").write_text("killed")
    (tmp_path / "5").write_text("killed")
    done, retried = results(tmp_path, 8)
    assert done == {number: 2 * number for number in range(8)}
    assert sorted((event.task["number"], event.why) for event in retried) == [
        (2, "killed by signal 9"), (5, "killed by signal 9"),
    ]  # fmt: skip
    assert not multiprocessing.active_children()


def test_a_worker_that_falls_silent_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("silent")
    done, retried = results(tmp_path, 3, silence=3.0)
    assert done == {0: 0, 1: 2, 2: 4}
    assert [event.task["number"] for event in retried] == [1]


def test_a_task_that_ends_every_worker_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "0").write_text("always killed")
    with pytest.raises(StageFailed, match="killed by signal 9"):
        results(tmp_path, 2)
    assert not multiprocessing.active_children()


def test_a_full_disk_in_a_worker_is_that_error_here(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("full")
    with pytest.raises(OSError) as caught:
        results(tmp_path, 3)
    assert caught.value.errno == errno.ENOSPC
    assert not multiprocessing.active_children()
