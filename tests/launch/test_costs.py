"""What work takes, before and after: pods counted as they are held, whether they work as a group or in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.estimates import examine
from assets.stage_asset import StageAsset
from pipelines.errors import BadInput
from pipelines.launch import accounting
from pipelines.launch.accounting import Account
from pipelines.launch.api import Api
from pipelines.launch.attempt import Attempt
from pipelines.launch.cluster import Cluster, Prices, as_bytes
from pipelines.launch.estimate import estimate, hold_against_budget
from pipelines.launch.render import render
from pipelines.launch.spec import JobSpec, Resources
from pipelines.stage import execute
from tests.assets.toy_stage import STAGE, ToySpec

IMAGE = "registry.example/vlm/gpu@sha256:" + "1" * 64
CLUSTER = Cluster(namespace="vlm", image=IMAGE, prices=Prices(gpu=5.0, spot_gpu=2.0))
DIVIDED = Resources(gpus=1, parts=32, hours=3)


def test_parts_cost_what_their_pods_cost() -> None:
    one = estimate("scores", DIVIDED, last_seconds=None, reused=False)
    assert one.gpu_hours == 3 * 32
    assert one.cost(CLUSTER) == 3 * 32 * 5.0


def test_parts_that_take_turns_hold_no_more_than_work_at_once() -> None:
    resources = Resources(**{**DIVIDED.model_dump(), "parts_at_once": 8})
    one = estimate("scores", resources, last_seconds=None, reused=False)
    assert (one.gpu_hours, one.cost(CLUSTER)) == (3 * 8, 3 * 8 * 5.0)
    spec = JobSpec("scores", "m", ToySpec(output=Path("/x")), resources=resources)
    body = render(spec, CLUSTER, 0, parts=32).job["spec"]
    assert (body["completions"], body["parallelism"]) == (32, 8)


def test_the_most_gpus_of_a_job_count_its_parts() -> None:
    cluster = CLUSTER.model_copy(update={"max_gpus": 32})
    hundred = Resources(gpus=8, parts=100)
    with pytest.raises(BadInput, match=r"100 parts with 8 GPUs are 800[\s\S]*or set `parts_at_once`"):
        cluster.check_possible(hundred, "scores")
    cluster.check_possible(Resources(gpus=8, parts=100, parts_at_once=4), "scores")


def test_a_budget_is_no_budget_where_gpus_have_no_price() -> None:
    free = CLUSTER.model_copy(update={"prices": Prices()})
    wanted = [estimate("pretrained", Resources(nodes=4, gpus=8), last_seconds=None, reused=False)]
    with pytest.raises(BadInput, match=r"GPUs of these stages have no price: pretrained[\s\S]*set `gpu`"):
        hold_against_budget(wanted, free, 100.0)
    hold_against_budget(
        [estimate("pretrained", Resources(gpus=8), last_seconds=None, reused=True)], free, 100.0
    )
    hold_against_budget([estimate("shards", Resources(), last_seconds=None, reused=False)], free, 100.0)


def pod(name: str, since: int | None, until: int | None) -> dict[str, Any]:
    """A pod that had its node from second `since` on, and ended at `until`."""

    def at(second: int) -> str:
        return f"1970-01-01T01:{second // 60:02d}:{second % 60:02d}Z"

    state = {"terminated": {"exitCode": 0, "finishedAt": at(until)}} if until is not None else {"running": {}}
    status = {"containerStatuses": [{"name": "main", "state": state}]}
    return {
        "metadata": {"name": name, "labels": {}},
        "status": {**status, **({"startTime": at(since)} if since is not None else {})},
    }


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """Four parts, two at once; it is 600 seconds after the job was made."""
    monkeypatch.setattr(accounting.time, "time", lambda: 3600.0 + 600.0)
    resources = Resources(gpus=2, parts=4, parts_at_once=2)
    spec = JobSpec("scores", "m", ToySpec(output=tmp_path), resources=resources)
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, current-context: c, users: [{name: u, user: {}}], "
        "clusters: [{name: k, cluster: {server: 'http://127.0.0.1:9'}}], contexts: [{name: c, context: {cluster: k, user: u}}]}"
    )
    cluster = CLUSTER.model_copy(update={"kubeconfig": kubeconfig})
    made = render(spec, cluster, 0, parts=4).job
    made["metadata"]["creationTimestamp"] = "1970-01-01T01:00:00Z"
    return Attempt(Api(cluster), cluster, spec, made, found=False, parts=4)


def test_each_pod_is_billed_from_its_node_to_its_end(attempt: Attempt) -> None:
    """The old way billed all parts from the start of the last one: 4 parts for 100 s."""
    account = Account(CLUSTER, attempt.spec)
    account.begin(attempt.name)
    attempt._see([pod("a", 100, None), pod("b", 120, None), pod("c", None, None)])
    # One has ended, one is lost without a word at second 600, the others take their turns.
    attempt._see([pod("a", 100, 300), pod("c", 300, 360), pod("d", 500, None)])
    account.end(attempt)
    held = 200 + 480 + 60 + 100
    assert account.usage.gpu_hours == pytest.approx(held * 2 / 3600)
    assert account.usage.cost == pytest.approx(held * 2 * 5.0 / 3600)
    assert account.usage.queued_seconds == 120, "until as many ran as work at once"
    assert account.usage.running_seconds == 480


def test_a_job_that_never_had_a_node_costs_nothing(attempt: Attempt) -> None:
    account = Account(CLUSTER, attempt.spec)
    account.begin(attempt.name)
    attempt._see([pod("a", None, None)])
    account.end(attempt)
    assert (account.usage.gpu_hours, account.usage.cost, account.usage.queued_seconds) == (0.0, 0.0, 600.0)


def test_what_a_job_took_is_told_in_words_and_figures(attempt: Attempt) -> None:
    account = Account(CLUSTER, attempt.spec)
    account.begin(attempt.name)
    attempt._see([pod("a", 0, 360), pod("b", 0, 360)])
    account.end(attempt)
    report = account.report()
    assert report["text"] == "scores took 0.10 h in 1 attempts, 0.40 GPU-hours, 2.00 USD"
    assert report["figures"] == {"GPU-hours": pytest.approx(0.4), "cost": pytest.approx(2.0)}


def test_hours_from_last_time_are_those_of_all_attempts_in_the_cluster(tmp_path: Path) -> None:
    """The manifest knows the last start alone; a run that reused the table, or made it here, knows nothing better."""
    key = dg.AssetKey("pretrained")
    declared = StageAsset(
        key, STAGE, lambda _: ToySpec(output=tmp_path / "toy", kept=7), group="toys", description="",
        resources=Resources(gpus=8),
    )  # fmt: skip
    execute(STAGE, ToySpec(output=tmp_path / "toy", kept=8))
    with dg.DagsterInstance.ephemeral() as instance:

        def made(**metadata: Any) -> None:
            instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=metadata))

        made(**{"job seconds": 1.0})
        last, _ = examine(declared, "", instance, inputs_to_come=False)
        assert last.hours is not None and last.hours < 0.1, "the manifest's"
        made(**{"job seconds": 7200.0, "GPU-hours": 16.0})
        made(reused=True)
        last, _ = examine(declared, "", instance, inputs_to_come=False)
        assert (last.hours, last.gpu_hours, last.source) == (2.0, 16.0, "last time")


@pytest.mark.parametrize(
    ("quantity", "number"), [("1Pi", 2.0**50), ("2E", 2e18), ("500n", 5e-7), ("1e3", 1e3), ("8Gi", 2.0**33)]
)
def test_every_suffix_of_a_quantity_is_read(quantity: str, number: float) -> None:
    assert as_bytes(quantity) == pytest.approx(number)
