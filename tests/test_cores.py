"""How many cores a stage takes where nothing says so: this process's, and no more than its container's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines import cores


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    for name in ("_QUOTA", "_OLD_QUOTA", "_OLD_PERIOD"):
        monkeypatch.setattr(cores, name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("said", "expected"), [("max 100000", 12), ("800000 100000", 8), ("50000 100000", 1), ("9900000 100000", 12)]
)  # fmt: skip
def test_a_containers_share_counts(container: Path, said: str, expected: int) -> None:
    (container / "_QUOTA").write_text(said + "\n")
    assert cores.usable_cores() == expected


@pytest.mark.parametrize(("said", "expected"), [("-1", 12), ("400000", 4)])
def test_an_older_container_says_it_elsewhere(container: Path, said: str, expected: int) -> None:
    (container / "_OLD_QUOTA").write_text(said)
    (container / "_OLD_PERIOD").write_text("100000")
    assert cores.usable_cores() == expected


def test_without_a_container_all_that_the_process_may_use_are_its_own(
    container: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cores.usable_cores() == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "5")
    assert cores.cores_of_a_rank() == 2
