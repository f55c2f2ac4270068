"""Another attempt downloads what failed in passing, and nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pipelines.download.spec import STAGE
from pipelines.stage import execute
from tests.download.conftest import CrawlMaker
from tests.download.hostile_server import HostileServer
from tests.download.test_download_stage import digests, tables


@pytest.fixture
def crawl(server: HostileServer, maker: CrawlMaker) -> Path:
    """Two shards; of the three flaky pages each answers the second time that it is asked. One row repeats another."""
    paths = [f"/ok/{at}.jpg" for at in range(10)]
    paths[2:2] = ["/flaky/1.jpg", "/missing.jpg", "/flaky/2.jpg", "/flaky/1.jpg", "/html.jpg", "/status/500"]
    paths += ["/flaky/3.jpg", "/ok/3.jpg"]
    captions = [f"caption {at % 17}" for at in range(len(paths))]
    captions[5] = captions[2]
    return maker.crawl([server.origin + path for path in paths], captions)


def test_only_what_failed_in_passing_is_downloaded_again(
    server: HostileServer, maker: CrawlMaker, crawl: Path
) -> None:
    port = server.server_port
    first = execute(STAGE, maker.spec(crawl, port))
    assert first.ledger is not None
    assert first.ledger.dropped == {
        "duplicate_row": 1, "http_404": 1, "http_5xx": 4, "not_an_image": 1,
    }  # fmt: skip
    before = Counter(server.hits)
    spec = maker.spec(crawl, port, attempt=1)
    second = execute(STAGE, spec)
    assert Counter(server.hits) - before == {f"/flaky/{at}.jpg": 1 for at in (1, 2, 3)} | {"/status/500": 1}
    assert second.ledger is not None
    assert second.ledger.dropped == {"duplicate_row": 1, "http_404": 1, "http_5xx": 1, "not_an_image": 1}
    assert (second.rows, second.metrics["rows_carried"]) == (14, 11)
    fresh = maker.spec(crawl, port, "fresh")
    execute(STAGE, fresh)
    assert digests(spec.output) == digests(fresh.output)
    before = Counter(server.hits)
    assert execute(STAGE, spec) == second
    assert Counter(server.hits) == before


def test_a_damaged_image_is_fetched_again_and_all_of_another_list(
    server: HostileServer, maker: CrawlMaker, crawl: Path
) -> None:
    port = server.server_port
    spec = maker.spec(crawl, port)
    execute(STAGE, spec)
    row = next(row for row in tables(spec.output)[0] if str(row["url"]).endswith("/ok/1.jpg"))
    (tar,) = spec.output.rglob(str(row["shard"]))
    content = bytearray(tar.read_bytes())
    content[row["offset"] + 100] ^= 1
    tar.write_bytes(bytes(content))
    execute(STAGE, maker.spec(crawl, port, attempt=1))
    assert server.hits["/ok/1.jpg"] == 2
    assert server.hits["/ok/2.jpg"] == 1
    assert len(tables(spec.output)[0]) == 14
    execute(STAGE, maker.spec(crawl, port, attempt=2, min_side=20))
    assert server.hits["/ok/2.jpg"] == 2
