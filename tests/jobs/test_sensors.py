"""Guarantees of the sensor that takes in crawls, on a real Dagster instance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.partitions import crawl_record, registered
from jobs.ingestion import Ingestion
from jobs.sensors import CRAWLS_PER_TICK, new_crawls_sensor
from pipelines.crawls import read_manifest

INGESTION = Ingestion(
    *(
        dg.define_asset_job(name)
        for name in ("ingest", "ingest_conversations", "ingest_translated_conversations")
    ),
    untranslated=("m3it",),
)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "crawls-to-take-in"
    folder.mkdir()
    (folder / "list.parquet").write_bytes(b"not read by the sensor")
    return folder


def put(folder: Path, file: str, crawl: str, more: str = "") -> None:
    (folder / file).write_text(f"crawl: {crawl}\nlanguage: en\nfiles: [list.parquet]\n{more}")


def tick(
    folder: Path, instance: dg.DagsterInstance, cursor: str | None = None, expected: tuple[str, ...] = ()
) -> dg.SensorResult:
    """One evaluation, and what the daemon does with its partition requests."""
    sensor = new_crawls_sensor(INGESTION, folder.parent / "data", folder, expected)
    result = sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
    assert isinstance(result, dg.SensorResult)
    for request in result.dynamic_partitions_requests or []:
        instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
    return result


def words(result: dg.SensorResult) -> str:
    assert result.skip_reason is not None
    return str(result.skip_reason.skip_message)


def test_a_new_manifest_becomes_a_partition_and_one_run(folder: Path, instance: dg.DagsterInstance) -> None:
    put(folder, "a.yaml", "first")
    result = tick(folder, instance)
    (request,) = result.run_requests or []
    assert request.partition_key == "first"
    assert registered(instance) == ["first"]
    recorded = read_manifest(crawl_record(folder.parent / "data", "first"))
    assert recorded.files == [folder / "list.parquet"]
    again = tick(folder, instance, result.cursor)
    assert not again.run_requests and "nothing new" in words(again)


def test_each_crawl_gets_the_job_for_what_it_holds(folder: Path, instance: dg.DagsterInstance) -> None:
    talks = "format: llava\nimages: {url_prefix: 'http://images.example/'}\n"
    put(folder, "a.yaml", "pairs")
    put(folder, "b.yaml", "talks", talks)
    put(folder, "c.yaml", "m3it", talks)
    (folder / "d.yaml").write_text(f"crawl: turkish\nlanguage: tr\nfiles: [list.parquet]\n{talks}")
    requests = tick(folder, instance).run_requests or []
    assert [(request.partition_key, request.job_name) for request in requests] == [
        ("pairs", "ingest"), ("talks", "ingest_translated_conversations"),
        ("m3it", "ingest_conversations"), ("turkish", "ingest_conversations"),
    ]  # fmt: skip


def test_a_manifest_may_lie_in_a_folder_of_its_own(folder: Path, instance: dg.DagsterInstance) -> None:
    (folder / "week-2").mkdir()
    (folder / "week-2/list.parquet").write_bytes(b"")
    put(folder / "week-2", "week-2.yaml", "week-2")
    assert [request.partition_key for request in tick(folder, instance).run_requests or []] == ["week-2"]


def test_a_changed_manifest_runs_again(folder: Path, instance: dg.DagsterInstance) -> None:
    put(folder, "a.yaml", "first")
    before = tick(folder, instance)
    put(folder, "a.yaml", "first", "license: cc-by\n")
    after = tick(folder, instance, before.cursor)
    assert (
        len({request.run_key for request in [*(before.run_requests or []), *(after.run_requests or [])]}) == 2
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("crawl: [", "not YAML"),
        ("crawl: ../../etc\nlanguage: en\nfiles: [list.parquet]", "crawl: String should match"),
        ("crawl: ok\nlanguage: en\nfiles: [nowhere.parquet]", "nowhere.parquet does not exist"),
        ("crawl: ok\nlanguage: en\nfiles: [list.parquet]\ncolour: red", "colour: unknown key"),
        ("# " + "x" * 1_000_001, "this is no crawl manifest"),
    ],
    ids=["not yaml", "name that is a path", "missing list", "unknown key", "huge"],
)
def test_a_malformed_manifest_is_reported_and_does_not_hold_up_the_others(
    text: str, expected: str, folder: Path, instance: dg.DagsterInstance
) -> None:
    (folder / "a-bad.yaml").write_text(text)
    alone = tick(folder, instance)
    assert expected in words(alone) and "a-bad.yaml" in words(alone) and "remedy" in words(alone)
    put(folder, "b-good.yaml", "good")
    assert [request.partition_key for request in tick(folder, instance).run_requests or []] == ["good"]


def test_a_mended_manifest_is_taken_in_by_the_next_tick(folder: Path, instance: dg.DagsterInstance) -> None:
    (folder / "a.yaml").write_text("crawl: [")
    cursor = tick(folder, instance).cursor
    put(folder, "a.yaml", "first")
    assert len(tick(folder, instance, cursor).run_requests or []) == 1


def test_two_manifests_cannot_bring_the_same_crawl(folder: Path, instance: dg.DagsterInstance) -> None:
    put(folder, "a.yaml", "first")
    cursor = tick(folder, instance).cursor
    put(folder, "b.yaml", "first", "license: other\n")
    second = tick(folder, instance, cursor)
    assert not second.run_requests and "already comes from a.yaml" in words(second)
    (folder / "a.yaml").unlink()
    assert len(tick(folder, instance, second.cursor).run_requests or []) == 1


def test_many_manifests_are_taken_in_over_several_ticks(folder: Path, instance: dg.DagsterInstance) -> None:
    for number in range(CRAWLS_PER_TICK + 3):
        put(folder, f"{number:03}.yaml", f"crawl-{number}")
    first = tick(folder, instance)
    second = tick(folder, instance, first.cursor)
    assert (len(first.run_requests or []), len(second.run_requests or [])) == (CRAWLS_PER_TICK, 3)


def test_the_graphs_own_crawl_becomes_a_partition_without_a_run(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    result = tick(folder, instance, expected=("world-1",))
    assert registered(instance) == ["world-1"] and not result.run_requests


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    assert "nowhere does not exist" in words(tick(tmp_path / "nowhere", instance))
