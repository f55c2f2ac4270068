"""What befalls the cluster's API, the account's rights, the storage or the run's own node ends no job that runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import StageFailed
from pipelines.lake import manifest
from pipelines.launch import attempt, channel
from pipelines.launch.channel import Reader, Writer
from pipelines.launch.kubernetes import KubernetesLauncher
from pipelines.launch.refusals import Denied
from pipelines.launch.spec import JobSpec, Report, Resources
from tests.launch.apiserver.cluster import FakeCluster
from tests.launch.conftest import messages
from tests.launch.test_kubernetes_toy import SMALL, Ended, job, run_in_thread


def progress(reports: list[Report]) -> bool:
    return any(report["kind"] == "progress" for report in reports)


@pytest.mark.parametrize("status", [401, 403])
def test_rights_that_are_gone_for_a_moment_end_no_job_that_runs(
    status: int, cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    """An authorizer that does not answer in time, a role that is being replaced, a token that is renewed late."""
    run = run_in_thread(cluster, job(tmp_path, seconds=3.0), reports)
    cluster.wait_for(lambda: progress(reports), "progress")
    cluster.api.troubles = [status] * 6
    assert run.wait().usage is not None
    assert cluster.api.troubles == []
    assert manifest.verify(tmp_path / "toy").rows == 8
    assert len(cluster.created("Job")) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_rights_that_stay_away_end_the_run_and_not_the_job(
    status: int, cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    run = run_in_thread(cluster, job(tmp_path, seconds=60.0), reports, patience_seconds=1.0)
    cluster.wait_for(lambda: progress(reports), "progress")
    cluster.api.outage = status
    with pytest.raises(Denied, match=r"goes on without this run[\s\S]*then run it again: it finds the job"):
        run.wait()
    cluster.api.outage = None
    assert [pod["status"]["phase"] for pod in cluster.pods()] == ["Running"]
    assert "delete jobs" not in cluster.api.requests


def test_an_account_that_may_not_look_at_pods_leaves_none_of_its_own(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right was never there: it is known at the first look, and nothing is lost."""
    monkeypatch.setattr(
        cluster.api.rights, "granted", cluster.api.rights.granted - {("run-worker", "list", "", "pods")}
    )
    with pytest.raises(Denied, match=r"run-worker may not list pods[\s\S]*k8s/base/rbac.yaml"):
        KubernetesLauncher(cluster.settings()).run(job(tmp_path, seconds=60.0), reports.append)
    assert cluster.jobs() == []


def test_an_outage_of_the_api_beyond_all_patience_is_told_and_waited_for(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    run = run_in_thread(cluster, job(tmp_path, seconds=2.0), reports, patience_seconds=0.2)
    cluster.wait_for(lambda: progress(reports), "progress")
    cluster.api.outage = 503
    cluster.wait_for(
        lambda: messages(reports).count("API is out of reach (get jobs: 503") >= 3, "three outages"
    )
    cluster.api.outage = None
    assert run.wait().usage is not None
    assert manifest.verify(tmp_path / "toy").rows == 8
    assert len(cluster.created("Job")) == 1


def test_an_outage_while_a_group_is_to_start_again_is_waited_for(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    run = run_in_thread(
        cluster, job(tmp_path, seconds=2.0), reports, patience_seconds=0.2, restart_seconds=2.0
    )
    cluster.wait_for(lambda: progress(reports), "progress")
    cluster.lose_node(0)
    cluster.wait_for(lambda: "all pods start again" in messages(reports), "the pause")
    cluster.api.outage = 0
    cluster.wait_for(lambda: "API is out of reach" in messages(reports), "the outage")
    cluster.api.outage = None
    usage = run.wait().usage
    assert usage is not None and usage.attempts == 2
    assert manifest.verify(tmp_path / "toy").rows == 8


class Flaky:
    """A file system that answers nothing while it is troubled."""

    def __init__(self, real: Any) -> None:
        self._real, self.troubled = real, False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name not in ("ls", "cat_file"):
            return found

        def call(*arguments: Any, **more: Any) -> Any:
            if self.troubled:
                raise OSError(5, "We encountered an internal error. Please try again.")
            return found(*arguments, **more)

        return call


def test_an_outage_of_the_storage_delays_what_is_seen_and_ends_nothing(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Flaky] = []
    real = channel._storage

    def storage(url: str) -> tuple[Any, str]:
        fs, path = real(url)
        made.append(Flaky(fs))
        return made[-1], path

    monkeypatch.setattr(channel, "_storage", storage)
    run = run_in_thread(cluster, job(tmp_path, seconds=3.0), reports)
    cluster.wait_for(lambda: progress(reports), "progress")
    made[0].troubled = True
    cluster.wait_for(lambda: "cannot be read now" in messages(reports), "the outage")
    made[0].troubled = False
    run.wait()
    assert manifest.verify(tmp_path / "toy").rows == 8
    words = messages(reports)
    assert "OSError: [Errno 5] We encountered an internal error" in words and "can be read again" in words
    assert [report["done"] for report in reports if report["kind"] == "progress"][-1] == 10


def test_a_file_that_holds_no_records_is_named_and_does_not_stop_the_others(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path), 0)
    for number in range(3):
        writer.write([{"kind": "message", "text": str(number)}])
    (spoilt,) = tmp_path.glob("*/00000001.jsonl")
    spoilt.write_text('{"kind": "mess')
    reader = Reader(str(tmp_path))
    assert [record["text"] for record in reader.read()] == ["0", "2"]
    assert "00000001.jsonl is no file of records" in reader.trouble
    assert list(reader.read()) == [] and reader.trouble == ""


def interrupted(
    cluster: FakeCluster,
    wanted: JobSpec,
    reports: list[Report],
    before: Callable[[], None],
    *,
    cancelled: bool = False,
) -> None:
    """The run is told to stop as Dagster tells it: by an exception out of whatever it does."""

    def stop(report: Report) -> None:
        reports.append(report)
        if report["kind"] == "progress":
            before()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        KubernetesLauncher(cluster.settings(), lambda: cancelled).run(wanted, stop)


def test_a_run_whose_node_is_drained_leaves_its_job_running_and_the_next_finds_it(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    wanted = job(tmp_path, seconds=6.0)
    cluster.add_run("first")
    interrupted(cluster, replace(wanted, requested_by="first"), reports, lambda: None)
    assert "nobody cancelled it" in messages(reports)
    assert "delete jobs" not in cluster.api.requests

    again: list[Report] = []
    KubernetesLauncher(cluster.settings()).run(replace(wanted, requested_by="second"), again.append)
    assert "found the running job" in messages(again)
    assert manifest.verify(tmp_path / "toy").rows == 8
    assert len(cluster.created("Job")) == 1


@pytest.mark.parametrize("sign", ["job deleted", "marked in Dagster"])
def test_a_run_in_the_cluster_that_was_cancelled_takes_its_job_along(
    sign: str, cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    cluster.add_run("first")
    wanted = replace(job(tmp_path, seconds=60.0), requested_by="first")
    if sign == "job deleted":
        interrupted(cluster, wanted, reports, lambda: cluster.end_run("first"))
    else:
        interrupted(cluster, wanted, reports, lambda: None, cancelled=True)
    assert cluster.left() == []


def test_a_run_that_is_stopped_in_the_moment_of_creation_leaves_no_job(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a terminal: no run's Job owns it, so nothing else would end it."""
    launcher = KubernetesLauncher(cluster.settings())
    create = launcher.api.create_job

    def stopped(body: dict[str, Any]) -> dict[str, Any]:
        create(body)
        raise KeyboardInterrupt

    monkeypatch.setattr(launcher.api, "create_job", stopped)
    with pytest.raises(KeyboardInterrupt):
        launcher.run(job(tmp_path, seconds=60.0), lambda report: None)
    cluster.wait_for(lambda: cluster.left() == [], "the end of the job")


def test_a_registry_that_is_out_when_a_group_starts_again_is_waited_for(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    """The same image was pulled before: it is there."""
    run = run_in_thread(cluster, job(tmp_path, seconds=2.0), reports, start_patience_seconds=0.0)
    cluster.wait_for(lambda: progress(reports), "progress")
    images = set(cluster.kubelet.images)
    cluster.kubelet.images.clear()
    cluster.lose_node(0)
    cluster.wait_for(
        lambda: "waits, though its pods ran before: the image cannot be pulled" in messages(reports), "it"
    )
    cluster.kubelet.images |= images
    assert run.wait().usage is not None
    assert manifest.verify(tmp_path / "toy").rows == 8


def test_a_node_that_never_answers_again_is_not_waited_for(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pod is to go and cannot, so that the cluster never calls the job failed."""
    monkeypatch.setattr(attempt, "OVERDUE_SECONDS", 0.5)
    run = run_in_thread(cluster, job(tmp_path, seconds=3.0), reports, grace_seconds=1)
    cluster.wait_for(lambda: progress(reports), "progress")
    cluster.cut_off(0)
    usage = run.wait().usage
    assert usage is not None and usage.attempts == 2
    assert manifest.verify(tmp_path / "toy").rows == 8
    words = messages(reports)
    assert "was disrupted (DeletionByTaintManager)" in words
    assert "will not go (their node is gone?); starting again without them" in words


def test_a_job_that_works_longer_than_its_deadline_is_ended_and_says_what_to_raise(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    resources = Resources(**{**SMALL.model_dump(), "deadline_hours": 2 / 3600})
    with pytest.raises(StageFailed, match=r"ended after 0.000555556 h; raise `deadline_hours`"):
        KubernetesLauncher(cluster.settings()).run(job(tmp_path, resources, seconds=60.0), reports.append)
    assert len(cluster.created("Job")) == 1


def test_a_pod_that_waits_for_its_first_node_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    environment = {
        **os.environ, "STAGE_MODULE": "tests.assets.toy_stage", "STAGE_SPEC": "{}", "STAGE_CHANNEL": str(tmp_path / "said"),
        "STAGE_SCRATCH": str(tmp_path), "STAGE_NODES": "2", "STAGE_RANKS": "1", "STAGE_JOIN_SECONDS": "600",
        "MASTER_ADDR": "no-such-node.invalid", "MASTER_PORT": "1", "JOB_COMPLETION_INDEX": "1",
    }  # fmt: skip
    worker = subprocess.Popen([sys.executable, "-m", "pipelines.launch.worker"], env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "progress-1.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=60) == 128 + signal.SIGTERM
    (end,) = Reader(str(tmp_path / "said")).read()
    assert end["kind"] == "end" and "asked to stop" in end["text"]


def test_two_runs_that_share_a_job_and_are_both_drained_leave_it(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    for run in ("first", "second"):
        cluster.add_run(run)
        interrupted(cluster, replace(job(tmp_path, seconds=6.0), requested_by=run), reports, lambda: None)
    last = Ended(KubernetesLauncher(cluster.settings()), job(tmp_path, seconds=6.0), reports)
    last.wait()
    assert len(cluster.created("Job")) == 1
