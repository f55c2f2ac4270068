"""Rows that end workers are found and dropped, by what the workers noted; others are not."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from pipelines.download import run
from pipelines.download.spec import STAGE
from pipelines.download.suspects import MOST_KILLERS, Suspects, acquit_all, named
from pipelines.stage import execute
from tests.download import pool_targets
from tests.download.conftest import CrawlMaker
from tests.download.hostile_server import HostileServer
from tests.download.test_download_stage import digests, tables

A, B, C = map(named, "abc")


def died(folder: Path, *, alone: bytes | None = None, beside: tuple[bytes, ...] = ()) -> Suspects:
    """What a worker finds after its predecessor; it notes rows and dies in its turn."""
    suspects = Suspects(folder, 0, 4)
    notes = folder / "0.notes"
    with ExitStack() as in_hand:
        for name in beside:
            in_hand.enter_context(suspects.beside(name))
        if alone is not None:
            in_hand.enter_context(suspects.alone(alone))
        left = notes.read_bytes()
    notes.write_bytes(left)
    return suspects


def test_a_row_that_was_alone_in_hand_twice_is_a_killer(tmp_path: Path) -> None:
    first, second = died(tmp_path, alone=A, beside=(B,)), died(tmp_path, alone=A)
    third = Suspects(tmp_path, 0, 4)
    assert (first.killers, first.suspects, first.news) == (frozenset(), frozenset(), "")
    assert (second.killers, second.suspects) == (frozenset(), {A, B})
    assert "2 rows that were in hand" in second.news
    assert (third.killers, third.suspects) == ({A}, {B})
    assert "worker_killed" in third.news
    third.close()
    assert not list(tmp_path.iterdir())


def test_rows_that_are_in_hand_beside_others_are_no_killers(tmp_path: Path) -> None:
    for _ in range(4):
        last = died(tmp_path, beside=(A, B))
    assert (last.killers, last.suspects, last.news) == (frozenset(), {A, B}, "")


def test_what_was_done_with_is_not_under_suspicion(tmp_path: Path) -> None:
    first = Suspects(tmp_path, 0, 4)
    with first.beside(A), first.alone(B), first.alone(C):
        pass
    assert Suspects(tmp_path, 0, 4).suspects == frozenset()


def test_workers_that_are_ended_on_purpose_blame_no_row(tmp_path: Path) -> None:
    died(tmp_path, alone=A)
    acquit_all(tmp_path)
    died(tmp_path, alone=A)
    acquitted = Suspects(tmp_path / "other", 0, 4)
    with acquitted.alone(A):
        acquitted.acquit()
        left = (tmp_path / "other/0.notes").read_bytes()
    assert not left.strip(b"\0")
    acquit_all(tmp_path)
    last = died(tmp_path)
    assert (last.killers, last.suspects) == (frozenset(), frozenset())


def test_where_everything_ends_workers_it_is_not_news_for_ever(tmp_path: Path) -> None:
    """The pool gives a task up that ends workers without news between."""
    for at in range(10):
        last = died(tmp_path, alone=named(str(at)))
        assert not last.news or at < 2
    for at in range(2 * MOST_KILLERS + 4):
        last = died(tmp_path / "same", alone=named(str(at // 2)))
    assert not last.news


def test_a_crawl_goes_on_without_the_rows_that_end_its_workers(
    server: HostileServer, maker: CrawlMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[str | None] = [f"{server.origin}/ok/{at}.jpg" for at in range(20)]
    rows[3], rows[7] = server.origin + "/crashes-decoders", server.origin + "/deadly"
    crawl = maker.crawl(rows, ["same caption"] * len(rows))
    monkeypatch.setattr(run.worker, "main", pool_targets.dying_of_rows)
    tables_made = []
    for workers in (1, 2):
        spec = maker.spec(
            crawl,
            server.server_port,
            f"with-{workers}",
            workers=workers,
            threads=4,
            timeout_seconds=20,
            total_seconds=20,
        )
        made = execute(STAGE, spec)
        assert made.ledger is not None
        assert (made.ledger.kept, made.ledger.dropped) == (18, {"worker_killed": 2})
        assert made.metrics["shards_retried"] >= 4
        _, dropped = tables(spec.output)
        assert [row["url"] for row in dropped] == [rows[3], rows[7]]
        tables_made.append(digests(spec.output))
    assert tables_made[0] == tables_made[1]
