"""The whole chain on a real Dagster instance: every link, from the world to the report, by the one command.

The models are too small to be right; what is tested is that each link hands the next what it needs,
that nothing runs twice for equal inputs, and that what is shown is what was made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from pipelines.lake import manifest
from tests.dagster_home import Home

pytestmark = pytest.mark.slow
CRAWL = "tiny-1"
IN_CRAWL = ("--tags", json.dumps({"dagster/partition": CRAWL}))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home in which the main job ran once."""
    home = Home.make(tmp_path_factory.mktemp("chain"))
    ended = home.execute("tiny")
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert "[24/24]" in ended.stderr
    assert str(Path("data/tiny/report/index.html")) in ended.stdout
    assert str(Path("data/tiny/report/results.json")) in ended.stdout
    return home


@pytest.fixture
def instance(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.chdir(home.folder)
    with dg.DagsterInstance.from_config(str(home.folder)) as instance:
        yield instance


def tables(home: Home) -> dict[str, Path]:
    """All tables of the workspace, by path."""
    workspace = home.folder / "data/tiny"
    found = (file.parent for file in workspace.rglob(manifest.MANIFEST_NAME))
    return {table.relative_to(workspace).as_posix(): table for table in found}


def versions(home: Home) -> dict[str, str]:
    return {name: manifest.read(table).data_version for name, table in tables(home).items()}


def test_every_table_is_whole_and_balanced(home: Home) -> None:
    made = tables(home)
    assert len(made) == 24
    for table in made.values():
        ledger = manifest.verify(table).ledger
        assert ledger is None or ledger.balanced


def test_training_freezes_the_version_of_each_crawl_it_read(home: Home) -> None:
    made = tables(home)
    pretrained = manifest.read(made["pretrained"])
    shards = manifest.read(made[f"crawls/{CRAWL}/training_shards"])
    assert pretrained.inputs[f"shards.{CRAWL}"] == shards.data_version


def test_dagster_knows_every_table_by_the_digest_of_its_content(
    home: Home, instance: dg.DagsterInstance
) -> None:
    for name, version in versions(home).items():
        crawl = name.startswith("crawls/")
        key = [name.split("/")[-1]] if crawl or name == "world" else ["tiny", *name.split("/")]
        (record,) = instance.fetch_materializations(dg.AssetKey(key), limit=1).records
        made = record.asset_materialization
        assert made is not None
        assert made.tags is not None
        assert made.tags["dagster/data_version"] == version
        assert made.partition == (CRAWL if crawl else None)


def test_the_results_state_every_score_for_every_model_and_language(home: Home) -> None:
    results = json.loads((home.folder / "data/tiny/report/results.json").read_text())
    assert set(results["scores"]["models"]) == {"pretrained", "english_only", "blend"}
    assert results["scores"]["complete"] is True
    assert results["scores"]["languages"] == ["en", "zh"]


def test_a_second_run_makes_nothing_and_says_so(home: Home) -> None:
    before = {
        name: (table / manifest.MANIFEST_NAME).stat().st_mtime_ns for name, table in tables(home).items()
    }
    again = home.execute("tiny")
    assert again.returncode == 0, again.stderr[-4000:]
    after = {
        name: (table / manifest.MANIFEST_NAME).stat().st_mtime_ns for name, table in tables(home).items()
    }
    assert after == before
    assert again.stderr.count("  reused: ") == 24


def test_another_threshold_filters_again_without_scoring_again(home: Home) -> None:
    before = versions(home)
    home.change_recipe("threshold: -1.0", "threshold: -0.99")
    ended = home.execute("refilter", *IN_CRAWL)
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert "clip_scores  reused: " in ended.stderr
    assert (
        "filtered_pairs  filtered_pairs: its parameters changed: parameters.threshold -1.0 -> -0.99"
        in ended.stderr
    )
    assert versions(home)[f"crawls/{CRAWL}/clip_scores"] == before[f"crawls/{CRAWL}/clip_scores"]


def test_a_crawl_of_ones_own_is_registered_ingested_and_joins_the_training(home: Home) -> None:
    made = home.run(
        "pipelines.world.crawl", "--world", "data/tiny/world", "--name", "week-2",
        "--rows", "60", "--seed", "3", "--output", "crawls/week-2",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    config = home.folder / "register.yaml"
    config.write_text("ops: {register: {config: {manifest: crawls/week-2/week-2.yaml}}}")
    registered = home.execute("register_crawl", "-c", str(config))
    assert registered.returncode == 0, registered.stderr
    assert "ingest" in registered.stderr
    ingested = home.execute("ingest", "--tags", '{"dagster/partition": "week-2"}')
    assert ingested.returncode == 0, ingested.stderr[-4000:]
    assert "crawls/week-2/training_shards" in tables(home)


def test_a_stage_alone_says_which_crawl_it_wants(home: Home) -> None:
    ended = home.execute("clip_scores")
    assert ended.returncode == 1
    assert "clip_scores works on one crawl, and this run names none" in ended.stderr
    assert "dagster job execute -m jobs -j clip_scores --tags" in ended.stderr


def test_a_stage_alone_runs_where_its_inputs_are(home: Home) -> None:
    ended = home.execute("filtered_pairs", *IN_CRAWL)
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert "[1/1] filtered_pairs  reused: " in ended.stderr
