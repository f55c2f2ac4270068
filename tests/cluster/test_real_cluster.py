"""The same client on a real cluster: `CLUSTER_FILE=... CLUSTER_WORKSPACE=... pytest -m cluster tests/cluster`.

Left out unless asked for. Needs the manifests of an overlay applied, images pushed, and a workspace that both this machine
and the pods can read and write: a URL, or a path of a volume that is mounted here too.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from kubernetes import client

from pipelines.lake import manifest
from pipelines.launch.cluster import Cluster, read_cluster
from pipelines.launch.kubernetes import KubernetesLauncher
from pipelines.launch.preflight import problems
from pipelines.launch.spec import JobSpec, Report, Resources
from pipelines.world.spec import STAGE, WorldParameters, WorldSpec

pytestmark = pytest.mark.cluster
SMALL = Resources(cpus=1, memory="4Gi", scratch="2Gi", shared_memory="64Mi")


@pytest.fixture
def cluster() -> Cluster:
    if not os.environ.get("CLUSTER_FILE") or not os.environ.get("CLUSTER_WORKSPACE"):
        pytest.skip("CLUSTER_FILE and CLUSTER_WORKSPACE name no cluster")
    return read_cluster()


@pytest.fixture
def world(cluster: Cluster) -> JobSpec:
    """A small table of the procedural world: real work of a minute, on one core."""
    output = Path(os.environ["CLUSTER_WORKSPACE"]) / f"try-{uuid.uuid4().hex[:8]}"
    spec = WorldSpec(output=output, parameters=WorldParameters(seed=1))
    return JobSpec("try/world", STAGE.module, spec, resources=SMALL, fingerprint=uuid.uuid4().hex[:16])


def left(launcher: KubernetesLauncher, job: str) -> list[object]:
    return [*launcher.api.jobs({"vlm/job": job.rpartition("-")[0]}), *launcher.api.pods(job)]


def test_everything_that_a_job_needs_is_there(cluster: Cluster, world: JobSpec) -> None:
    assert list(problems(cluster, KubernetesLauncher(cluster).api, {"world": world.resources})) == []


def test_a_job_makes_its_table(cluster: Cluster, world: JobSpec) -> None:
    reports: list[Report] = []
    usage = KubernetesLauncher(cluster).run(world, reports.append)
    assert manifest.verify(world.spec.output).rows > 0
    assert any(report["kind"] == "progress" for report in reports)
    assert usage.attempts == 1


def test_a_job_that_is_cancelled_leaves_nothing(cluster: Cluster, world: JobSpec) -> None:
    launcher = KubernetesLauncher(cluster)
    names: list[str] = []

    def stop(report: Report) -> None:
        if report["kind"] == "state" and report["text"].startswith("started the job "):
            names.append(report["text"].rpartition(" ")[2])
        if report["kind"] == "progress":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launcher.run(world, stop)
    assert left(launcher, names[0]) == []


def test_a_pod_that_is_deleted_costs_one_restart(cluster: Cluster, world: JobSpec) -> None:
    launcher = KubernetesLauncher(cluster)
    core: client.CoreV1Api = launcher.api._core
    deleted: list[str] = []

    def delete_once(report: Report) -> None:
        if report["kind"] == "progress" and not deleted:
            found = core.list_namespaced_pod(cluster.namespace, label_selector="vlm/role=data").items
            deleted.extend(
                pod.metadata.name for pod in found if pod.metadata.name.startswith("vlm-try-world")
            )
            for name in deleted:
                core.delete_namespaced_pod(name, cluster.namespace)

    usage = launcher.run(world, delete_once)
    assert usage.attempts == 2
    assert manifest.verify(world.spec.output).rows > 0
