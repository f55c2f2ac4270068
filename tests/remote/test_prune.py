"""A cache is bounded by age and by size: the oldest go first, the rest and the budgets stay, and old files can be pruned too."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pipelines.errors import BAD_INPUT_EXIT_CODE
from pipelines.remote import cache as caching
from pipelines.remote.cache import Cache, Spent, key_of
from pipelines.remote.prune import first_day, main

DAY = 20_000


def key(number: int) -> bytes:
    return key_of(f"text {number}", {})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten entries of about 1000 bytes, one a day; the budget of an account; today is the tenth day."""
    with Cache(tmp_path / "requests.sqlite") as cache:
        for number in range(10):
            monkeypatch.setattr(caching, "today", lambda number=number: DAY + number)
            cache.put({key(number): "x" * 1000})
        cache.spend("a table", Spent(3, 4, 5))
    monkeypatch.setattr("pipelines.remote.prune.today", lambda: DAY + 9)
    return tmp_path


def left(folder: Path) -> list[int]:
    with Cache(folder / "requests.sqlite") as cache:
        assert cache.spent("a table") == Spent(3, 4, 5)
        found = cache.get([key(number) for number in range(10)])
    return [number for number in range(10) if key(number) in found]


def test_what_was_kept_longer_ago_goes(folder: Path) -> None:
    assert main([str(folder), "--days", "4"]) == 0
    assert left(folder) == [5, 6, 7, 8, 9]


def test_the_oldest_make_room_and_their_disk_is_given_back(folder: Path) -> None:
    with Cache(folder / "requests.sqlite") as cache:
        cache.put({key_of(f"large {at}", {}): "y" * 100_000 for at in range(20)})
    assert (folder / "requests.sqlite").stat().st_size > 2_000_000
    assert main([str(folder), "--gigabytes", "0.000004"]) == 0
    assert left(folder) == []
    assert (folder / "requests.sqlite").stat().st_size < 100_000


def test_a_dry_run_says_it_and_deletes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--days", "2", "--dry-run"]) == 0
    assert "7 entries" in capsys.readouterr().out
    assert left(folder) == list(range(10))


def test_a_file_from_before_days_were_kept_is_read_and_counts_as_the_oldest(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "requests.sqlite") as old:
        old.execute("create table entries (key blob primary key, value text not null) without rowid")
        old.execute("insert into entries values (?, ?)", (key(0), "old"))
    old.close()
    with Cache(tmp_path / "requests.sqlite") as cache:
        assert cache.get([key(0)]) == {key(0): "old"}
        cache.put({key(1): "new"})
    assert main([str(tmp_path), "--days", "300"]) == 0
    with Cache(tmp_path / "requests.sqlite") as cache:
        assert cache.get([key(0), key(1)]) == {key(1): "new"}


@pytest.mark.parametrize(
    ("days", "most", "first"),
    [(None, 30, -1), (2, None, 8), (None, 15, 9), (None, 10, 9), (None, 0, 11), (2, 15, 9), (0, 30, 10)],
)
def test_whole_days_go_until_both_bounds_hold(days: int | None, most: int | None, first: int) -> None:
    sizes = [(8, 1, 10), (9, 1, 5), (10, 1, 5)]
    assert first_day(sizes, days=days, most_bytes=most, now=10) == first


def test_a_folder_without_a_cache_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--days", "1"]) == BAD_INPUT_EXIT_CODE
    assert "no cache lies in this folder" in capsys.readouterr().err
