"""Guarantees of the one function with which every asset is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets import checks, stage_asset
from assets.checks import Check
from assets.console import Console
from assets.partitions import CRAWLS, PARTITION_TAG
from assets.resources import Compute
from assets.stage_asset import StageAsset
from pipelines.lake import manifest as manifests
from pipelines.stage import StageSpec
from tests.assets.toy_stage import STAGE, ToySpec

RESOURCES = {"compute": Compute(), "console": Console()}
TOY, AFTER = dg.AssetKey("toy"), dg.AssetKey("after")


def declare(spec: Callable[[str], StageSpec], key: dg.AssetKey = TOY, **more: Any) -> dg.AssetsDefinition:
    return stage_asset.stage_asset(StageAsset(key, STAGE, spec, group="toys", description="A toy.", **more))


def run(
    *assets: dg.AssetsDefinition, instance: dg.DagsterInstance, tags: dict[str, str] | None = None
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        list(assets),
        instance=instance,
        tags=tags,
        resources=RESOURCES,
        raise_on_error=False,
    )


def failure_text(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    metadata = event.step_failure_data.user_failure_data
    assert metadata is not None, "not a Failure that was raised on purpose"
    return str(metadata.description)


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


def test_a_table_is_launched_once_and_then_reused_with_the_same_data_version(
    tmp_path: Path, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    toy = declare(lambda _: ToySpec(output=tmp_path / "toy"), checks=[checks.checksums()])
    first = run(toy, instance=instance)
    log = (tmp_path / "toy/_launch/log.txt").stat().st_mtime_ns
    second = run(toy, instance=instance)
    assert first.success and second.success
    assert (tmp_path / "toy/_launch/log.txt").stat().st_mtime_ns == log, "it was launched again"
    made, again = (result.asset_materializations_for_node("make_toy")[0] for result in (first, second))
    assert (made.metadata["reused"].value, again.metadata["reused"].value) == (False, True)
    version = manifests.read(tmp_path / "toy").data_version
    assert made.tags["dagster/data_version"] == again.tags["dagster/data_version"] == version
    words = capfd.readouterr().err
    assert "it was never made" in words
    assert "reused: code, parameters and inputs are as on" in words


def test_a_changed_parameter_makes_the_table_anew_and_says_which(
    tmp_path: Path, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(declare(lambda _: ToySpec(output=tmp_path / "toy")), instance=instance).success
    assert run(declare(lambda _: ToySpec(output=tmp_path / "toy", kept=3)), instance=instance).success
    assert "its parameters changed: kept 8 -> 3" in capfd.readouterr().err
    assert manifests.read(tmp_path / "toy").rows == 3


def test_metadata_holds_the_figures_as_numbers_and_shows_foreign_text_literally(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    result = run(declare(lambda _: ToySpec(output=tmp_path / "toy")), instance=instance)
    (made,) = result.asset_materializations_for_node("make_toy")
    assert made.metadata["mean"].value == 0.5
    assert made.metadata["by language/zh"].value == 2
    assert made.metadata["dagster/row_count"].value == 8
    assert made.metadata["keep rate"].value == 0.8
    ledger = str(made.metadata["ledger"].value)
    assert "| kept | 8 |" in ledger
    assert "<img" not in ledger and "|odd" not in ledger and "&lt;img" in ledger


def test_progress_is_observed_while_the_stage_runs(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_asset, "OBSERVATION_SECONDS", 0.5)
    toy = declare(lambda _: ToySpec(output=tmp_path / "toy", rows_in=20, kept=20, seconds=4.0))
    result = run(toy, instance=instance)
    assert result.success
    observation = instance.fetch_observations(TOY, limit=1).records[0].asset_observation
    assert observation is not None
    assert {"done", "rate", "loss"} <= set(observation.metadata)
    assert "counting" in str(observation.description)


def test_bad_input_fails_with_the_whole_message_and_is_not_retried(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    toy = declare(lambda _: ToySpec(output=tmp_path / "toy", behaviour="bad input"))
    with pytest.raises(dg.Failure) as raised:
        dg.materialize([toy], instance=instance, resources=RESOURCES)
    words = str(raised.value.description)
    assert "column 'url' is missing" in words and "list.parquet" in words and "rename the column" in words
    assert raised.value.allow_retries is False


def test_a_missing_input_table_names_it_and_the_remedy(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    spec = ToySpec(output=tmp_path / "toy", upstream=tmp_path / "nowhere")
    words = failure_text(run(declare(lambda _: spec), instance=instance))
    assert "nowhere" in words and "does not exist" in words and "remedy" in words


def test_a_killed_stage_fails_with_its_log_and_publishes_nothing(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    result = run(declare(lambda _: ToySpec(output=tmp_path / "toy", behaviour="die")), instance=instance)
    assert "killed by signal 9" in failure_text(result) and "log.txt" in failure_text(result)
    assert not manifests.exists(tmp_path / "toy")


def test_a_stage_that_raises_fails_with_its_last_words(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    result = run(declare(lambda _: ToySpec(output=tmp_path / "toy", behaviour="fail")), instance=instance)
    assert "the machine is on fire" in failure_text(result)


def test_an_interrupted_stage_says_that_it_goes_on(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    spec = ToySpec(output=tmp_path / "toy", behaviour="interrupted")
    assert "run it again to go on" in failure_text(run(declare(lambda _: spec), instance=instance))


@pytest.mark.parametrize(
    ("check", "kept"),
    [(checks.keep_rate(0.9, 1.0), 8), (checks.non_empty(), 0), (checks.loss_finite(), 8)],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_failed_check_stops_what_is_downstream_and_keeps_the_table(
    check: Check, kept: int, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    toy = declare(lambda _: ToySpec(output=tmp_path / "toy", kept=kept), checks=[check])
    after = declare(
        lambda _: ToySpec(output=tmp_path / "after", upstream=tmp_path / "toy"), key=AFTER, upstream=[TOY]
    )
    result = run(toy, after, instance=instance)
    assert not result.success
    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.check_name, evaluation.passed, evaluation.blocking) == (check.name, False, True)
    assert manifests.exists(tmp_path / "toy") and not (tmp_path / "after").exists()


def test_a_file_changed_on_disk_is_noticed_and_the_table_made_anew(
    tmp_path: Path, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    toy = declare(lambda _: ToySpec(output=tmp_path / "toy"), checks=[checks.checksums()])
    run(toy, instance=instance)
    manifests.file(tmp_path / "toy", "rows.txt").write_text("row\n" * 7 + "rot\n")
    assert run(toy, instance=instance).success
    assert "its files changed" in capfd.readouterr().err
    assert "rot" not in manifests.file(tmp_path / "toy", "rows.txt").read_text()


def test_a_crawl_asset_works_on_the_crawl_of_the_run(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions(str(CRAWLS.name), ["mine"])
    toy = declare(lambda crawl: ToySpec(output=tmp_path / crawl / "toy"), by_crawl=True)
    assert run(toy, instance=instance, tags={PARTITION_TAG: "mine"}).success
    assert manifests.exists(tmp_path / "mine/toy")
    assert list(instance.get_materialized_partitions(TOY)) == ["mine"]


@pytest.mark.parametrize(
    ("tags", "words"),
    [({}, "this run names none"), ({PARTITION_TAG: "typo"}, "the crawl 'typo' is not registered")],
)
def test_a_crawl_asset_says_early_which_crawl_to_name(
    tags: dict[str, str], words: str, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions(str(CRAWLS.name), ["mine"])
    toy = declare(lambda crawl: ToySpec(output=tmp_path / crawl / "toy"), by_crawl=True)
    text = failure_text(run(toy, instance=instance, tags=tags))
    assert words in text and "registered: mine" in text and "dagster job execute" in text
    assert not list(tmp_path.iterdir())
