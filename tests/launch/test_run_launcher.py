"""Dagster's own launcher on the stand-in cluster, configured by the file that is deployed, and with its accounts' rights alone."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._config import validate_config
from dagster._core.events import RunFailureReason
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.launcher.base import WorkerStatus
from dagster._core.storage.tags import RUN_FAILURE_REASON_TAG
from dagster._serdes import ConfigurableClassData
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import UserDefinedDagsterK8sConfig

from tests.dagster_home import REPOSITORY
from tests.launch.apiserver.cluster import NAMESPACE, ORCHESTRATOR, FakeCluster

LOCATION = Path(__file__).with_name("toy_location.py")
DEPLOYED = REPOSITORY / "k8s/base/dagster.yaml"
pytestmark = pytest.mark.slow


def deployed() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(DEPLOYED.read_text())
    return found


def adapted(cluster: FakeCluster, account: str, folder: Path) -> dict[str, Any]:
    """The deployed instance with what this machine lacks replaced: Postgres, S3, the pod's own account."""
    found = deployed()
    found["storage"] = {"sqlite": {"base_dir": str(folder / "history")}}
    del found["compute_logs"]
    launcher = found["run_launcher"]["config"]
    launcher |= {"load_incluster_config": False, "kubeconfig_file": str(cluster.kubeconfig(account))}
    launcher["job_image"] = ORCHESTRATOR
    # Without the queue, which the daemon empties: this process does what the daemon would.
    found["run_coordinator"] = {
        "module": "dagster._core.run_coordinator.sync_in_memory_run_coordinator", "class": "SyncInMemoryRunCoordinator",
    }  # fmt: skip
    return found


class Deployment:
    """Homes of the processes that are deployed, over one history."""

    def __init__(self, cluster: FakeCluster, folder: Path) -> None:
        self._cluster, self._folder = cluster, folder
        (folder / "history").mkdir(parents=True)
        settings = cluster.settings().model_dump(mode="json", exclude_defaults=True)
        (folder / "cluster.yaml").write_text(yaml.safe_dump(settings))
        instance = yaml.safe_dump(adapted(cluster, "run-worker", folder))
        cluster.add("ConfigMap", "configmaps", "dagster-instance", data={"dagster.yaml": instance})
        factory = {
            "COMPUTE_MODE": "kubernetes", "CLUSTER_FILE": str(folder / "cluster.yaml"),
            "TOY_OUTPUT": str(folder / "toy"), "TOY_SECONDS": "60",
        }  # fmt: skip
        cluster.add("ConfigMap", "configmaps", "factory", data=factory)
        cluster.add("ConfigMap", "configmaps", "cluster", data={})
        cluster.add("Secret", "secrets", "dagster-postgres", data={"postgresql-password": "not used here"})
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONWARNINGS": "ignore",
            **factory,
        }

    def home(self, account: str) -> Path:
        place = self._folder / account
        place.mkdir(exist_ok=True)
        document = adapted(self._cluster, account, self._folder)
        (place / "dagster.yaml").write_text(yaml.safe_dump(document))
        return place

    def launch(self, account: str) -> str:
        """`dagster job launch`; returns the run's id."""
        done = subprocess.run(
            [sys.executable, "-m", "dagster", "job", "launch", "-f", str(LOCATION), "-j", "toy"],
            cwd=self._folder, env={**self.environment, "DAGSTER_HOME": str(self.home(account))},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        (job,) = [body for body in self._cluster.created("Job") if "dagster-run" in body["metadata"]["name"]]
        return str(job["metadata"]["name"]).removeprefix("dagster-run-")


def test_a_run_in_the_cluster_starts_its_job_and_takes_it_along_when_it_is_ended(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    deployment = Deployment(cluster, tmp_path / "deployment")
    run_id = deployment.launch("daemon")

    def work() -> list[dict[str, Any]]:
        return [job for job in cluster.jobs() if job["metadata"]["name"].startswith("vlm-toy")]

    cluster.wait_for(work, "the job of the asset", seconds=240)
    (job,) = work()
    (owner,) = job["metadata"]["ownerReferences"]
    assert owner["name"] == f"dagster-run-{run_id}"
    cluster.wait_for(
        lambda: any(pod["metadata"]["name"].startswith("vlm-toy") and pod["status"].get("phase") == "Running" for pod in cluster.pods()),
        "its pod",
    )  # fmt: skip

    with dg.DagsterInstance.from_config(str(deployment.home("daemon"))) as daemon:
        run = daemon.get_run_by_id(run_id)
        assert run is not None
        assert daemon.run_launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
        assert "dagster-run" in str(daemon.run_launcher.get_run_worker_debug_info(run))
        # The daemon ends the runs of a backfill that is cancelled; "Terminate" in the UI is done by the web server.
        run_job = cluster.store.get("jobs", NAMESPACE, f"dagster-run-{run_id}")
        assert daemon.run_launcher.terminate(run_id)
    run_job["spec"]["suspend"] = True
    cluster.store.create("jobs", NAMESPACE, run_job)
    with dg.DagsterInstance.from_config(str(deployment.home("webserver"))) as webserver:
        assert webserver.run_launcher.terminate(run_id)

    cluster.wait_for(
        lambda: cluster.left() == [] and cluster.pods() == [], "the end of everything", seconds=240
    )
    with dg.DagsterInstance.from_config(str(deployment.home("daemon"))) as daemon:
        # With its pods gone, what is left to say stands in the job.
        assert daemon.run_launcher.get_run_worker_debug_info(run)


def test_a_run_whose_node_is_drained_is_started_again_by_dagster_and_its_job_goes_on(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    deployment = Deployment(cluster, tmp_path / "deployment")
    run_id = deployment.launch("daemon")

    def pods(prefix: str) -> list[dict[str, Any]]:
        return [pod for pod in cluster.pods() if pod["metadata"]["name"].startswith(prefix)]

    cluster.wait_for(
        lambda: [pod for pod in pods("vlm-toy") if pod["status"].get("phase") == "Running"], "its pod"
    )
    (worker,) = pods(f"dagster-run-{run_id}")
    cluster.controllers.delete("pods", NAMESPACE, worker["metadata"]["name"])  # as an eviction does
    cluster.wait_for(lambda: not pods(f"dagster-run-{run_id}"), "the end of the run worker")

    assert [pod["metadata"].get("deletionTimestamp") for pod in pods("vlm-toy")] == [None]
    with dg.DagsterInstance.from_config(str(deployment.home("daemon"))) as daemon:
        run = daemon.get_run_by_id(run_id)
        assert run is not None and run.status == dg.DagsterRunStatus.FAILURE
        reason = RunFailureReason(run.tags[RUN_FAILURE_REASON_TAG])
        assert auto_reexecution_should_retry_run(daemon, run, reason)
    cluster.end_run(run_id)
    cluster.wait_for(lambda: cluster.left() == [], "the end of everything")


def test_a_pod_of_a_run_cannot_be_made_privileged_by_whoever_starts_it(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    launcher = deployed()["run_launcher"]["config"]
    allowed = launcher["only_allow_user_defined_k8s_config_fields"]
    variables = launcher["only_allow_user_defined_env_vars"]

    def checked(tag: dict[str, Any]) -> None:
        config = UserDefinedDagsterK8sConfig.from_dict(tag)
        K8sContainerContext(run_k8s_config=config).validate_user_k8s_config_for_run(allowed, variables)

    checked({"container_config": {"resources": {"limits": {"memory": "4Gi"}}}})
    for forbidden in (
        {"container_config": {"security_context": {"privileged": True}}},
        {"pod_spec_config": {"host_network": True}},
        {"pod_spec_config": {"service_account_name": "daemon"}},
    ):
        with pytest.raises(Exception, match="violated the allowed list"):
            checked(forbidden)


@pytest.mark.parametrize("section", ["storage", "compute_logs", "run_launcher"])
def test_the_deployed_instance_is_configured_as_its_classes_want_it(
    section: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = copy.deepcopy(deployed()[section])
    if section == "storage":
        found = {"module": "dagster_postgres", "class": "DagsterPostgresStorage", "config": found["postgres"]}
    data = ConfigurableClassData(found["module"], found["class"], yaml.safe_dump(found["config"]))
    module = __import__(data.module_name, fromlist=[data.class_name])
    kind = getattr(module, data.class_name)
    result = validate_config(kind.config_type(), found["config"])
    assert result.success, result.errors
