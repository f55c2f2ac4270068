"""Groups of pods as JobSets, whose controller makes a deleted Job anew: nothing of ours outlives its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.launch import start
from pipelines.launch.janitor import sweep
from pipelines.launch.jobset import as_job_set
from pipelines.launch.kubernetes import KubernetesLauncher
from pipelines.launch.render import render
from pipelines.launch.spec import JobSpec, Report, Resources
from pipelines.launch.start import start_or_find
from tests.assets.toy_stage import ToySpec
from tests.launch.apiserver.admission import Refused, valid
from tests.launch.apiserver.cluster import FakeCluster
from tests.launch.conftest import messages
from tests.launch.test_kubernetes_toy import SMALL, Ended, job

TWO_NODES = Resources(nodes=2, cpus=1, memory="2Gi", scratch="1Gi", shared_memory="64Mi")


def group(folder: Path, **spec: Any) -> JobSpec:
    """Two nodes with a rank each."""
    spec = {"processes": 2, **spec}
    return replace(job(folder, TWO_NODES, **spec), distributed=True)


def left(cluster: FakeCluster) -> list[str]:
    """Also what has no label of ours."""
    return [
        f"{kind}/{name}"
        for (kind, _, name), _ in cluster.store.everything()
        if kind in ("jobsets", "jobs", "pods")
    ]


def stop_at_progress(report: Report) -> None:
    if report["kind"] == "progress":
        raise KeyboardInterrupt


def test_two_nodes_of_a_jobset_find_each_other_and_make_their_table(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    usage = KubernetesLauncher(cluster.settings(backend="jobset")).run(group(tmp_path), reports.append)

    assert manifest.verify(tmp_path / "toy").rows == 8
    assert usage.job.endswith("-a0-main-0")
    assert [kind for kind, _ in cluster.api.recorded] == ["JobSet"]
    hosts = {pod["spec"]["hostname"] for pod in cluster.pods()}
    assert hosts == {f"{usage.job}-0", f"{usage.job}-1"}


def test_a_jobset_that_is_cancelled_is_gone_for_good(cluster: FakeCluster, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        KubernetesLauncher(cluster.settings(backend="jobset")).run(
            job(tmp_path, seconds=30.0), stop_at_progress
        )
    assert left(cluster) == []


def test_the_janitor_ends_the_jobset_and_not_its_job_alone(cluster: FakeCluster, tmp_path: Path) -> None:
    settings = cluster.settings(backend="jobset")
    api = KubernetesLauncher(settings).api
    start_or_find(api, settings, job(tmp_path, seconds=60.0))
    for _ in range(2):
        sweep(api, patience_seconds=-1.0, notice_seconds=-1.0)
    cluster.wait_for(lambda: left(cluster) == [], "the end of everything")
    assert cluster.api.requests["delete jobsets"] == 1


def test_a_jobset_without_a_controller_is_taken_back_and_says_so(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "CONTROLLER_LOOKS", 1)
    cluster.controllers.job_sets = False
    launcher = KubernetesLauncher(cluster.settings(backend="jobset"))
    with pytest.raises(
        BadInput, match=r"nothing makes the job vlm-week-1-toy[\s\S]*install JobSet's controller"
    ):
        launcher.run(job(tmp_path), lambda report: None)
    assert left(cluster) == []


def test_a_run_that_is_stopped_while_the_controller_works_leaves_no_jobset(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.controllers.job_sets = False

    def interrupted(seconds: float) -> None:
        cluster.controllers.job_sets = True
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.launch.start.time.sleep", interrupted)
    launcher = KubernetesLauncher(cluster.settings(backend="jobset"))
    with pytest.raises(KeyboardInterrupt):
        start_or_find(launcher.api, launcher.cluster, job(tmp_path, seconds=60.0))
    cluster.wait_for(lambda: left(cluster) == [], "the end of everything")


def test_a_jobset_that_another_run_has_just_made_is_waited_for(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    """Its Job is not there yet: no fault, and no second one."""
    settings = cluster.settings(backend="jobset")
    cluster.controllers.job_sets = False
    made = render(job(tmp_path), settings, 0, token="other")
    KubernetesLauncher(settings).api.create_job_set(as_job_set(made.job))
    run = Ended(KubernetesLauncher(settings), job(tmp_path), reports)
    cluster.wait_for(lambda: cluster.api.requests["get jobsets"], "a second run")
    cluster.controllers.job_sets = True
    run.wait()
    assert "found the running job" in messages(reports)
    assert manifest.verify(tmp_path / "toy").rows == 8
    assert len(cluster.created("JobSet")) == 1


def test_a_jobset_lives_as_long_as_any_run_that_follows_it(cluster: FakeCluster, tmp_path: Path) -> None:
    settings = cluster.settings(backend="jobset")
    api = KubernetesLauncher(settings).api
    for run in ("first", "second"):
        cluster.add_run(run)
        attempt = start_or_find(api, settings, replace(job(tmp_path, seconds=60.0), requested_by=run))
    assert attempt.found
    # The cluster deletes the Job of a run some time after its end.
    cluster.end_run("first")
    looks = cluster.ticks
    cluster.wait_for(lambda: cluster.ticks > looks + 4, "the garbage collector")
    assert attempt.name in str(cluster.jobs())
    cluster.end_run("second")
    cluster.wait_for(lambda: left(cluster) == [], "the end of everything")


@pytest.mark.parametrize("wrong", ["unknown", "job", "name"])
def test_the_stand_in_refuses_a_jobset_that_a_cluster_would_refuse(
    wrong: str, cluster: FakeCluster, tmp_path: Path
) -> None:
    made = as_job_set(render(job(tmp_path), cluster.settings(backend="jobset"), 0).job)
    valid(made)
    if wrong == "unknown":
        made["spec"]["restarts"] = 0
    elif wrong == "job":
        made["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["nodes"] = 2
    else:
        made["metadata"]["name"] = "n" * 50
    with pytest.raises(Refused):
        valid(made)


def test_the_longest_names_leave_room_for_what_a_jobset_appends(cluster: FakeCluster) -> None:
    spec = JobSpec(
        "a-very/long name " * 9, "m", ToySpec(output=Path("/x")), resources=Resources(**{**SMALL.model_dump(), "nodes": 512})
    )  # fmt: skip
    valid(as_job_set(render(spec, cluster.settings(backend="jobset"), 999).job))
