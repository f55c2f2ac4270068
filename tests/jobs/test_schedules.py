"""Guarantees of the schedule that filters again, on a real Dagster instance and real tables."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.partitions import CRAWLS
from assets.stage_asset import StageAsset
from jobs.janitor import janitor_schedule
from jobs.schedules import refilter_schedule
from pipelines.stage import execute
from tests.assets.toy_stage import STAGE, ToySpec

MONDAY = datetime.datetime(2026, 3, 2, 3, tzinfo=datetime.UTC)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        instance.add_dynamic_partitions(str(CRAWLS.name), ["done", "stale", "unscored"])
        yield instance


def declared(data: Path, *, kept: int = 8, scored_rows: int = 10) -> tuple[StageAsset, StageAsset]:
    """A scoring and a filtering stage: `raw` -> `scores` -> `filtered`."""

    def scores(crawl: str) -> ToySpec:
        return ToySpec(output=data / crawl / "scores", upstream=data / crawl / "raw", rows_in=scored_rows)

    def filtered(crawl: str) -> ToySpec:
        return ToySpec(output=data / crawl / "filtered", upstream=data / crawl / "scores", kept=kept)

    return (
        StageAsset(dg.AssetKey("scores"), STAGE, scores, group="crawls", description=""),
        StageAsset(dg.AssetKey("filtered"), STAGE, filtered, group="crawls", description=""),
    )


def make(data: Path, crawl: str, *stages: StageAsset) -> None:
    execute(STAGE, ToySpec(output=data / crawl / "raw"))
    for stage in stages:
        execute(STAGE, stage.spec(crawl))


def tick(
    instance: dg.DagsterInstance, scores: StageAsset, filtered: StageAsset
) -> list[dg.RunRequest] | dg.SkipReason:
    job = dg.define_asset_job("refilter")
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=MONDAY)
    result = refilter_schedule(job, scores, filtered)(context)
    assert isinstance(result, list | dg.SkipReason)
    return result


def test_only_crawls_out_of_date_are_filtered_again(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    now, before = declared(tmp_path), declared(tmp_path, kept=5)
    make(tmp_path, "done", *now)
    make(tmp_path, "stale", *before)
    result = tick(instance, *now)
    assert isinstance(result, list)
    assert [request.partition_key for request in result] == ["stale"]


def test_a_crawl_that_was_never_filtered_is(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    now = declared(tmp_path)
    make(tmp_path, "done", *now)
    make(tmp_path, "stale", now[0])
    result = tick(instance, *now)
    assert isinstance(result, list) and [request.partition_key for request in result] == ["stale"]


def test_a_changed_scoring_model_makes_the_filter_result_stale(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    make(tmp_path, "done", *declared(tmp_path))
    result = tick(instance, *declared(tmp_path, scored_rows=9))
    assert isinstance(result, list) and [request.partition_key for request in result] == ["done"]


def test_when_nothing_is_stale_the_reason_names_every_crawl(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    now = declared(tmp_path)
    make(tmp_path, "done", *now)
    make(tmp_path, "stale", *now)
    result = tick(instance, *now)
    assert isinstance(result, dg.SkipReason)
    words = str(result.skip_message)
    assert "done: its filter result is up to date" in words
    assert "unscored: this table does not exist yet" in words


def test_the_same_tick_asks_once_and_another_parameter_asks_anew(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    make(tmp_path, "stale", *declared(tmp_path))
    keys = []
    for kept in (5, 5, 4):
        result = tick(instance, *declared(tmp_path, kept=kept))
        assert isinstance(result, list)
        keys.append(result[0].run_key)
    assert keys[0] == keys[1] != keys[2]


def test_the_janitor_works_by_itself_where_jobs_outlive_their_runs() -> None:
    assert janitor_schedule("kubernetes").default_status == dg.DefaultScheduleStatus.RUNNING
    assert janitor_schedule("local").default_status == dg.DefaultScheduleStatus.STOPPED
