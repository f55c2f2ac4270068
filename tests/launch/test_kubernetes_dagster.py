"""Dagster runs that end as runs do: killed and found again, cancelled by a signal, asked for twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets.resources import Compute
from pipelines.lake import manifest
from pipelines.launch import naming
from tests.dagster_home import Home
from tests.launch.apiserver.cluster import FakeCluster

LOCATION = Path(__file__).with_name("toy_location.py")


class Worker:
    """A home whose job runs on the stand-in cluster."""

    def __init__(self, cluster: FakeCluster, folder: Path, seconds: float) -> None:
        folder.mkdir()
        self.home = Home.make(folder)
        self.output = folder / "toy"
        self.cluster_file = folder / "cluster.yaml"
        settings = cluster.settings().model_dump(mode="json", exclude_defaults=True)
        self.cluster_file.write_text(yaml.safe_dump(settings))
        self._environment = {
            **self.home.environment,
            "COMPUTE_MODE": "kubernetes",
            "CLUSTER_FILE": str(self.cluster_file),
            "TOY_OUTPUT": str(self.output),
            "TOY_SECONDS": str(seconds),
        }

    def start(self) -> subprocess.Popen[str]:
        """`dagster job execute`, in the background."""
        return subprocess.Popen(
            [sys.executable, "-m", "dagster", "job", "execute", "-f", str(LOCATION), "-j", "toy"],
            cwd=self.home.folder, env=self._environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


def followers(cluster: FakeCluster) -> int:
    """Runs that left their note on the one job."""
    (job,) = cluster.jobs()
    return sum(key.startswith(naming.FOLLOWER_PREFIX) for key in job["metadata"]["annotations"])


def running(cluster: FakeCluster) -> bool:
    return any(pod["status"].get("phase") == "Running" for pod in cluster.pods())


def test_a_run_worker_that_is_killed_leaves_its_job_and_the_next_run_finds_it(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(cluster, tmp_path / "home", seconds=3.0)
    killed = worker.start()
    cluster.wait_for(lambda: running(cluster), "the pod")
    # However slow this machine is, the job is still under way when the next run comes.
    cluster.freeze(True)
    cluster.wait_for(lambda: followers(cluster) == 1, "the first run's note")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()

    run = worker.start()
    cluster.wait_for(lambda: followers(cluster) == 2, "the second run's note")
    cluster.freeze(False)
    words = run.communicate()[0]

    assert "found the running job" in words, words[-3000:]
    assert manifest.verify(worker.output).rows == 8
    assert len(cluster.created("Job")) == 1
    monkeypatch.chdir(worker.home.folder)  # in which the history lies
    with dg.DagsterInstance.from_config(str(worker.home.folder)) as instance:
        made = instance.fetch_materializations(dg.AssetKey("toy"), limit=1).records[0].asset_materialization
    assert made is not None
    assert made.metadata["attempts"].value == 1
    assert str(made.metadata["job"].value).startswith("vlm-toy-")
    assert made.metadata["GPU-hours"].value == 0.0


def test_a_run_that_is_asked_to_stop_takes_its_pods_with_it(cluster: FakeCluster, tmp_path: Path) -> None:
    worker = Worker(cluster, tmp_path / "home", seconds=60.0)
    run = worker.start()
    cluster.wait_for(lambda: running(cluster), "the pod")
    run.send_signal(signal.SIGTERM)

    words = run.communicate()[0]

    assert cluster.left() == []
    assert not cluster.kubelet.processes
    assert "is gone" in words
    assert not manifest.exists(worker.output)


def test_what_no_run_waits_for_is_ended_by_the_janitor_and_nothing_else(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    worker = Worker(cluster, tmp_path / "home", seconds=60.0)
    killed = worker.start()
    cluster.wait_for(lambda: running(cluster), "the pod")
    compute = Compute(mode="kubernetes", cluster_file=str(worker.cluster_file))
    assert compute.sweep(600.0, 0.0) == []

    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert compute.sweep(600.0, 0.0) == []
    (marked,) = compute.sweep(0.0, 3600.0)
    (waits,) = compute.sweep(0.0, 3600.0)
    assert not marked.deleted and not waits.deleted and marked.asset == "toy"
    # A run that comes back to it is what the notice is for: the mark of before says nothing then.
    (job,) = cluster.jobs()
    beat = {f"{naming.FOLLOWER_PREFIX}back": str(time.time_ns())}
    cluster.store.update(
        "jobs", "vlm", job["metadata"]["name"], lambda job: job["metadata"]["annotations"].update(beat)
    )
    (again,) = compute.sweep(0.0, 0.0)
    assert not again.deleted
    (swept,) = compute.sweep(0.0, 0.0)

    assert swept.deleted
    cluster.wait_for(lambda: cluster.left() == [], "the end of the pods")


def test_an_unknown_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPUTE_MODE", "cloud")
    with pytest.raises(Exception, match="set it to local or kubernetes"):
        Compute.of_environment()
