"""SIGKILL of workers wherever they write: no hang, no torn file, and the same bytes as undisturbed."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from pipelines.download import run
from pipelines.download.spec import STAGE
from pipelines.stage import execute
from tests.download import pool_targets
from tests.download.conftest import CrawlMaker
from tests.download.hostile_server import HostileServer
from tests.download.test_download_stage import digests

KILLS = {0: (4, 8), 1: (9, 11)}
"""By shard: before which of the 17 steps in which it opens, renames or removes a file its worker is killed. 6 opens the
tar; 7 to 9 put the files at their names; 11 puts the record that makes the shard whole; what follows tidies up."""


def test_a_worker_killed_between_its_writes_changes_no_byte(
    server: HostileServer, maker: CrawlMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[str | None] = [f"{server.origin}/ok/{at}.jpg" for at in range(2 * len(KILLS))]
    rows[1] = server.origin + "/missing.jpg"
    crawl = maker.crawl(rows)
    undisturbed = maker.spec(crawl, server.server_port, "undisturbed", rows_per_shard=2, timeout_seconds=5)
    execute(STAGE, undisturbed)
    marks = maker.folder / "marks"
    marks.mkdir()
    for shard, steps in KILLS.items():
        (marks / str(shard)).write_text(" ".join(map(str, steps)))
    monkeypatch.setenv(pool_targets.MARKS, str(marks))
    monkeypatch.setattr(run.worker, "main", pool_targets.killed_while_writing)
    disturbed = maker.spec(crawl, server.server_port, "disturbed", rows_per_shard=2, timeout_seconds=5)
    made = execute(STAGE, disturbed)
    assert made.metrics["shards_retried"] == 4
    assert digests(disturbed.output) == digests(undisturbed.output)
    assert not multiprocessing.active_children()
    assert not list(Path(disturbed.output).rglob("scratch/*"))
