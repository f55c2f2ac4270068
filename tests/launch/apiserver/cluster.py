"""The stand-in cluster as a test uses it: set up, disturbed, looked at."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from pipelines.launch import naming
from pipelines.launch.cluster import Cluster, Volume
from tests.launch.apiserver.controllers import Controllers
from tests.launch.apiserver.kubelet import UID_VARIABLE, Kubelet, kill_pod, main_processes
from tests.launch.apiserver.rights import Rights
from tests.launch.apiserver.server import Api
from tests.launch.apiserver.store import Missing, Store

Manifest = dict[str, Any]
NAMESPACE = "vlm"
IMAGE = "registry.example/vlm/gpu@sha256:" + "1" * 64
ORCHESTRATOR = "registry.example/vlm/orchestrator@sha256:" + "2" * 64


class FakeCluster:
    """API server, controllers and kubelet of one test."""

    def __init__(self, folder: Path, rights: Rights, *, shared: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.store = Store()
        self.controllers = Controllers(self.store)
        self.controllers.accounts |= rights.accounts
        self.kubelet = Kubelet(self.store, folder / "pods", shared=shared)
        self.kubelet.images |= {IMAGE, ORCHESTRATOR}
        self.api = Api(self.store, self.controllers, self.kubelet, rights, NAMESPACE)
        self.ticks = 0
        """How often everything that happens by itself has had its turn."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> FakeCluster:
        self.api.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.kubelet.stop()
        self.api.stop()

    def _tick(self) -> None:
        while not self._stop.wait(0.05):
            self.controllers.tick()
            self.kubelet.tick()
            self.ticks += 1

    def kubeconfig(self, account: str = "run-worker") -> Path:
        """The file with which a client works as this account."""
        path = self.folder / f"kubeconfig-{account}.yaml"
        named = {"name": account}
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": account,
            "clusters": [{**named, "cluster": {"server": self.api.url}}],
            "users": [{**named, "user": {"token": account}}],
            "contexts": [{**named, "context": {"cluster": account, "user": account, "namespace": NAMESPACE}}],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(document))
        return path

    def settings(self, account: str = "run-worker", **more: Any) -> Cluster:
        """What jobs are told about this cluster, with short pauses."""
        quick = {
            "namespace": NAMESPACE, "image": IMAGE, "kubeconfig": self.kubeconfig(account),
            "poll_seconds": 0.1, "heartbeat_seconds": 0.3, "restart_seconds": 0.1, "start_patience_seconds": 0.5,
            "grace_seconds": 30, "join_seconds": 120,
            "environment": {"OMP_NUM_THREADS": "1"},
            "volumes": [Volume(claim="shared", path=str(self.kubelet.shared))],
        }  # fmt: skip
        return Cluster(**{**quick, **more}).checked("the test's cluster")

    # What a test looks at

    def jobs(self) -> list[Manifest]:
        return self.store.list("jobs", NAMESPACE)

    def pods(self) -> list[Manifest]:
        return self.store.list("pods", NAMESPACE)

    def left(self) -> list[str]:
        """Everything of ours that is still there."""
        return [
            f"{kind}/{name}"
            for (kind, _, name), found in self.store.everything()
            if (found["metadata"].get("labels") or {}).get(naming.MANAGED_BY_LABEL) == naming.MANAGED_BY
        ]

    def created(self, kind: str) -> list[Manifest]:
        """Every object of this kind that was ever created through the API."""
        return [body for recorded, body in self.api.recorded if recorded == kind]

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 240.0) -> None:
        """Raises if it does not come."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(0.02)

    # What a test does to it

    def add(self, kind: str, resource: str, name: str, namespace: str = NAMESPACE, **body: Any) -> None:
        self.store.create(resource, namespace, {"kind": kind, "metadata": {"name": name}, **body})

    def add_run(self, run_id: str) -> None:
        """The Job of a Dagster run in the cluster; what runs in it is the test itself."""
        template = {"metadata": {}, "spec": {"containers": [{"name": "dagster", "image": ORCHESTRATOR}]}}
        self.add("Job", "jobs", naming.run_job(run_id), spec={"suspend": True, "template": template})

    def end_run(self, run_id: str) -> None:
        """Its Job is deleted, as when somebody terminates the run."""
        self.store.remove("jobs", NAMESPACE, naming.run_job(run_id))

    def pod(self, index: int) -> Manifest:
        """The running pod with this completion index."""
        for pod in self.pods():
            labels = pod["metadata"]["labels"]
            if labels.get(naming.INDEX_LABEL) == str(index) and pod["status"].get("phase") == "Running":
                return pod
        raise Missing(f"no running pod of index {index}")

    def preempt(self, index: int) -> None:
        """The scheduler takes the node for something else: the pod is asked to stop."""
        name = self.pod(index)["metadata"]["name"]
        target = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
        self.store.update("pods", NAMESPACE, name, lambda pod: pod["status"].setdefault("conditions", []).append(target))  # fmt: skip
        uid = self.pod(index)["metadata"]["uid"]
        self._terminate(uid)

    def _terminate(self, uid: str) -> None:
        for process in main_processes(uid, self.kubelet.processes[uid]):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)

    def lose_node(self, index: int) -> None:
        """The node of this pod is gone, without a word; so is the pod object."""
        pod = self.pod(index)
        kill_pod(pod["metadata"]["uid"])
        self.store.remove("pods", NAMESPACE, pod["metadata"]["name"])

    def cut_off(self, index: int) -> None:
        """The node of this pod does not answer any more, and the cluster wants the pod away: it stays all the same."""
        name, uid = self.pod(index)["metadata"]["name"], self.pod(index)["metadata"]["uid"]
        self.kubelet.cut_off.add(uid)
        kill_pod(uid)
        target = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
        self.store.update("pods", NAMESPACE, name, lambda pod: pod["status"].setdefault("conditions", []).append(target))  # fmt: skip
        self.controllers.delete("pods", NAMESPACE, name)

    def freeze(self, frozen: bool) -> None:
        """Let all pods stand still, or go on."""
        before: set[int] | None = None
        while True:
            found = set()
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if process.environ().get(UID_VARIABLE) in self.kubelet.processes:
                        process.suspend() if frozen else process.resume()
                        found.add(process.pid)
            # One that was started while the others were stopped is found in the next round.
            if not frozen or (found and found == before):
                return
            before = found

    def kill(self, index: int) -> None:
        """SIGKILL for everything in the pod."""
        kill_pod(self.pod(index)["metadata"]["uid"])
