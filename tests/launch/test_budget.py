"""The budget is held in the run itself: whatever started it, nothing is launched beyond it."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets.budget import Budget
from assets.console import Console
from assets.resources import Compute
from assets.stage_asset import StageAsset, stage_asset
from jobs.preflight_job import preflight_job
from pipelines.launch.spec import Resources
from pipelines.recipe import read_recipe
from tests.assets.test_stage_asset import failure_text
from tests.assets.toy_stage import STAGE, ToySpec
from tests.dagster_home import TINY_RECIPE
from tests.launch.apiserver.cluster import FakeCluster
from tests.launch.test_kubernetes_toy import SMALL


def run(
    cluster: FakeCluster, folder: Path, *, budget: float, gpu_price: float, hours: float | None
) -> dg.ExecuteInProcessResult:
    """Two tables, one after the other, each on eight GPUs."""
    resources = Resources(**{**SMALL.model_dump(), "gpus": 8, "hours": hours})
    first = StageAsset(
        dg.AssetKey("first"), STAGE, lambda _: ToySpec(output=folder / "first", seconds=1.0),
        group="toys", description="", resources=resources,
    )  # fmt: skip
    second = StageAsset(
        dg.AssetKey("second"), STAGE, lambda _: ToySpec(output=folder / "second", upstream=folder / "first"),
        group="toys", description="", resources=resources, upstream=[first.key],
    )  # fmt: skip
    settings = cluster.settings(prices={"gpu": gpu_price}, budget=budget)
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_defaults=True)))
    purse = Budget([first, second])
    return dg.materialize(
        [stage_asset(first, purse), stage_asset(second, purse)],
        instance=dg.DagsterInstance.ephemeral(),
        resources={"compute": Compute(mode="kubernetes", cluster_file=str(path)), "console": Console()},
        raise_on_error=False,
    )


def test_a_run_whose_tables_together_are_too_dear_launches_none_of_them(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    """Each alone would be within the budget."""
    result = run(cluster, tmp_path, budget=500.0, gpu_price=4.0, hours=10.0)
    assert "would cost 640.00 USD, and the budget is 500.00" in failure_text(result)
    assert cluster.created("Job") == []


def test_where_a_budget_is_set_and_nobody_knows_the_hours_nothing_is_launched(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    result = run(cluster, tmp_path, budget=500.0, gpu_price=4.0, hours=None)
    assert "nobody knows what these stages will cost: first, second" in failure_text(result)
    assert cluster.created("Job") == []


def test_a_run_that_took_longer_than_it_was_said_to_stops_at_its_budget(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    result = run(cluster, tmp_path, budget=1.7, gpu_price=1000.0, hours=1e-4)
    words = failure_text(result)
    assert "this run has cost" in words and "second would cost 0.80 more, and the budget is 1.70" in words
    (job,) = cluster.created("Job")
    assert job["metadata"]["annotations"]["vlm/asset"] == "first"


def test_what_a_job_that_failed_has_cost_is_seen_and_counted(cluster: FakeCluster, tmp_path: Path) -> None:
    resources = Resources(**{**SMALL.model_dump(), "gpus": 8, "hours": 1e-4})
    # A pod's times are whole seconds: one that ended in the second in which it began would have cost nothing.
    declared = StageAsset(
        dg.AssetKey("first"), STAGE, lambda _: ToySpec(output=tmp_path / "first", behaviour="fail", seconds=1.5),
        group="toys", description="", resources=resources,
    )  # fmt: skip
    settings = cluster.settings(prices={"gpu": 1000.0}, budget=1.7)
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_defaults=True)))
    purse = Budget([declared])
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [stage_asset(declared, purse)],
            instance=instance,
            resources={"compute": Compute(mode="kubernetes", cluster_file=str(path)), "console": Console()},
            raise_on_error=False,
        )
        seen = instance.fetch_observations(declared.key, limit=20).records
    assert "the machine is on fire" in failure_text(result)
    (last, *_) = [record.asset_observation for record in seen if record.asset_observation]
    assert "GPU-hours" in str(last.description) and "USD" in str(last.description)
    cost = last.metadata["cost"].value
    assert isinstance(cost, float) and cost > 0
    assert purse._spent[result.run_id] == pytest.approx(cost)


def test_a_run_within_its_budget_makes_its_tables(cluster: FakeCluster, tmp_path: Path) -> None:
    assert run(cluster, tmp_path, budget=10_000.0, gpu_price=4.0, hours=1.0).success
    assert len(cluster.created("Job")) == 2


def preflight(path: Path, compute: Compute) -> dg.ExecuteInProcessResult:
    job = preflight_job(read_recipe(path))
    return job.execute_in_process(
        instance=dg.DagsterInstance.ephemeral(), resources={"compute": compute}, raise_on_error=False
    )


def test_the_preflight_can_be_asked_for_in_the_web_ui(cluster: FakeCluster, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    priced = "resources: {default: {hours: 0.5}, pretrained: {nodes: 2, gpus: 8, hours: 10}}"
    recipe.write_text(TINY_RECIPE.read_text().replace("data/tiny", str(tmp_path / "data")) + priced)
    path = tmp_path / "cluster.yaml"

    def described(budget: float) -> Compute:
        settings = cluster.settings(prices={"gpu": 4.0}, budget=budget)
        path.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_defaults=True)))
        return Compute(mode="kubernetes", cluster_file=str(path))

    assert "there is no cluster to check" in failure_text(preflight(recipe, Compute()))
    assert "the budget is 600.00" in failure_text(preflight(recipe, described(600.0)))
    passed = preflight(recipe, described(700.0))
    assert passed.success
    (output,) = [event for event in passed.all_events if event.event_type_value == "STEP_OUTPUT"]
    assert "total: 160.0 GPU-hours, 640.00 USD" in str(output.step_output_data.metadata["estimate"].value)
    assert cluster.created("Job") == []
