"""What was demanded to be removed is never asked for again, by whatever crawl; and no crawl is downloaded anew for a longer list."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from assets.crawls import crawl_assets
from assets.layout import Layout
from assets.partitions import crawl_record
from assets.systems import crawls as systems
from assets.systems.crawls import pair_crawl_assets
from pipelines.download.reasons import Reason
from pipelines.download.shipping import Shipping
from pipelines.download.spec import STAGE, DownloadSpec
from pipelines.lake import manifest, takedown
from pipelines.recipe import read_recipe
from pipelines.stage import execute
from pipelines.systems.chain import crawl_uses
from pipelines.systems.recipe import read_system
from pipelines.takedown import keep
from pipelines.takedown.spec import NAME, Demand
from tests.download.conftest import CrawlMaker
from tests.download.hostile_server import HostileServer
from tests.download.test_download_stage import digests, tables

ROOT = Path(__file__).parents[2]
GOOD = 12


@pytest.fixture
def crawl(server: HostileServer, maker: CrawlMaker) -> Path:
    """Three shards of four rows: twelve images, all of which can be had."""
    return maker.crawl([f"{server.origin}/ok/{at}.jpg" for at in range(GOOD)])


def demand(maker: CrawlMaker, *urls: str, domain: str = "") -> Path:
    """Add to the list of the workspace; return its table."""
    demands = [Demand(kind="url", value=url) for url in urls]
    keep.add(maker.folder, [*demands, *([Demand(kind="domain", value=domain)] if domain else [])], [])
    return maker.folder / NAME


def spec(maker: CrawlMaker, crawl: Path, server: HostileServer, output: str, **changes: Any) -> DownloadSpec:
    listed = maker.folder / NAME
    made = maker.spec(crawl, server.server_port, output, workers=1, rows_per_shard=4, timeout_seconds=5, **changes)  # fmt: skip
    return made.model_copy(update={"takedown": listed if manifest.exists(listed) else None})


def taken_down(output: Path) -> list[str]:
    return [str(row["url"]) for row in tables(output)[1] if row["reason"] == takedown.REASON]


def test_a_demanded_url_or_domain_is_dropped_without_a_request(
    server: HostileServer, maker: CrawlMaker
) -> None:
    rows: list[str | None] = [f"{server.origin}/ok/{at}.jpg" for at in range(6)]
    # The same server under a name of its own: what does not tell two images apart does not matter either.
    rows += [f"http://LOCALHOST:{server.server_port}/ok/7.jpg", f"{server.origin}/ok/8.jpg#part"]
    rows += ["https://images.example.org/9.jpg", "https://deep.images.example.org/10.jpg", rows[2], None]
    crawl = maker.crawl(rows)
    demand(maker, f"{server.origin}/ok/2.jpg", f"{server.origin}/ok/8.jpg", domain="images.example.org")
    demand(maker, f"https://localhost:{server.server_port}/ok/7.jpg")
    found = spec(maker, crawl, server, "table")
    made = execute(STAGE, found)
    assert made.ledger is not None
    asked = {f"/ok/{at}.jpg" for at in (0, 1, 3, 4, 5)}
    assert set(server.hits) == asked
    assert made.ledger.dropped == {"taken_down": 6, "url_empty": 1}
    assert (made.ledger.rows_in, made.ledger.kept) == (12, 5)
    assert Counter(taken_down(found.output)) == Counter(str(one) for one in (rows[2], *rows[6:11]))
    assert made.metrics["success_rate"] == round(5 / 6, 4)
    told = made.metrics["takedown"]
    assert told == {"demands": 4, "list": takedown.read(maker.folder / NAME).digest}


def test_a_longer_list_makes_no_table_anew_and_another_attempt_takes_out_what_it_names(
    server: HostileServer, maker: CrawlMaker, crawl: Path
) -> None:
    assert Reason.TAKEN_DOWN == takedown.REASON
    first = execute(STAGE, spec(maker, crawl, server, "table"))
    assert first.metrics["takedown"] == {"demands": 0, "list": takedown.read(None).digest}
    before = Counter(server.hits)
    url = f"{server.origin}/ok/6.jpg"
    demand(maker, url)
    assert execute(STAGE, spec(maker, crawl, server, "table")) == first
    again = spec(maker, crawl, server, "table", attempt=1)
    made = execute(STAGE, again)
    assert Counter(server.hits) == before
    assert (made.rows, made.metrics["rows_carried"]) == (GOOD - 1, GOOD - 1)
    assert taken_down(again.output) == [url]
    fresh = spec(maker, crawl, server, "fresh")
    execute(STAGE, fresh)
    assert digests(again.output) == digests(fresh.output)
    # A demand that was withdrawn, on a list made anew: the row was never asked for, so it is now.
    freed = again.model_copy(update={"takedown": None, "parameters": again.parameters.model_copy(update={"attempt": 2})})  # fmt: skip
    server.hits.clear()
    assert execute(STAGE, freed).rows == GOOD
    assert server.hits == {"/ok/6.jpg": 1}


def test_a_list_that_grew_while_a_run_was_down_costs_only_the_shards_that_it_names(
    server: HostileServer, maker: CrawlMaker, crawl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    ship = Shipping.ship

    def killed(self: Shipping, record: Any) -> None:
        ship(self, record)
        if record.shard == 1:
            raise Killed

    demand(maker, f"{server.origin}/ok/1.jpg")
    monkeypatch.setattr(Shipping, "ship", killed)
    with pytest.raises(Killed):
        execute(STAGE, spec(maker, crawl, server, "table"))
    monkeypatch.setattr(Shipping, "ship", ship)
    demand(maker, f"{server.origin}/ok/5.jpg")
    server.hits.clear()
    made = execute(STAGE, spec(maker, crawl, server, "table"))
    assert set(server.hits) == {f"/ok/{at}.jpg" for at in (4, 6, 7, 8, 9, 10, 11)}
    assert made.metrics["shards_reused"] == 1
    assert made.metrics["takedown"]["demands"] == 2
    execute(STAGE, spec(maker, crawl, server, "fresh"))
    assert digests(maker.folder / "table") == digests(maker.folder / "fresh")
    assert len(taken_down(maker.folder / "table")) == 2


def test_demands_are_looked_up_by_host_once_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    demands = takedown.Demands.of([f"https://host{at}.example.org/a.jpg" for at in range(50)], [])
    assert (len(demands), bool(demands), bool(takedown.read(None))) == (50, True, False)
    other = takedown.Demands.of([f"http://HOST{at}.example.org/a.jpg#x" for at in reversed(range(50))], [])
    assert demands.digest == other.digest
    assert demands.digest != takedown.Demands.of([], ["host1.example.org"]).digest
    urls = [f"https://host{at}.example.org/{name}.jpg" for at in range(40, 60) for name in "ab"]
    column = pa.chunked_array([urls])
    asked: list[str] = []
    host = takedown._host
    monkeypatch.setattr(takedown, "_host", lambda url: (asked.append(url), host(url))[1])
    assert demands.match(column).to_pylist() == [at % 2 == 0 and at < 20 for at in range(40)]
    assert len(asked) < 50 + len(urls)


@pytest.mark.parametrize("recipe", ["quickstart", "viscpm-chat"])
def test_the_graph_gives_the_download_the_list_of_its_workspace(
    maker: CrawlMaker, server: HostileServer, crawl: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    layout, path = Layout(maker.folder, recipe), ROOT / "recipes" / f"{recipe}.yaml"
    if recipe == "quickstart":
        assets, name = crawl_assets(read_recipe(path), layout), "week-1"
    else:
        system = read_system(path)
        assets, name = pair_crawl_assets(system, layout), crawl_uses(system.pretraining)[0].crawl
        monkeypatch.setattr(systems, "_record", lambda *_: None)
    record = crawl_record(maker.folder, name)
    record.parent.mkdir(parents=True)
    record.write_text(crawl.read_text().replace("urls.parquet", str(maker.folder / "urls.parquet")))
    download = next(asset for asset in assets if asset.stage is STAGE)

    def listed() -> Path | None:
        made = download.spec(name)
        assert isinstance(made, DownloadSpec)
        return made.takedown

    assert listed() is None
    assert demand(maker, f"{server.origin}/ok/1.jpg") == listed()
