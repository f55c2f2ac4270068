"""The control plane of the stand-in: Indexed Jobs, garbage collection, and a queue like Kueue's."""

from __future__ import annotations

import copy
import datetime
import random
import string
from typing import Any

from tests.launch.apiserver.admission import Refused, admit_pod
from tests.launch.apiserver.store import Missing, Store, now

Manifest = dict[str, Any]
INDEX = "batch.kubernetes.io/job-completion-index"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


class Controllers:
    """What happens by itself, one step at a time."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.accounts: set[str] = {"default"}
        self.closed_queues: set[str] = set()
        """Queues without room: their jobs stay suspended."""
        self.job_sets = True
        """Whether the controller of JobSets is there."""
        self.policy = ""
        """What an admission policy says to every pod; it admits all without."""
        self.pods_made = 0

    def tick(self) -> None:
        for (kind, namespace, name), found in self.store.everything():
            if kind == "jobs":
                self._queue(namespace, found)
                job = self.store.find("jobs", namespace, name)
                if job is not None:
                    _Reconcile(self, namespace, job).step()
            if kind == "jobsets" and self.job_sets:
                self._job_set(namespace, found)
        self._collect()

    def _collect(self) -> None:
        """Delete what no owner is left of."""
        uids = self.store.uids()
        for (kind, namespace, name), found in self.store.everything():
            owners = found["metadata"].get("ownerReferences") or []
            if owners and not any(owner["uid"] in uids for owner in owners):
                self.delete(kind, namespace, name)

    def delete(self, kind: str, namespace: str, name: str, grace: float | None = None) -> None:
        """Delete an object; a pod is first asked to stop."""
        if kind != "pods":
            self.store.remove(kind, namespace, name)
            return

        def mark(pod: Manifest) -> None:
            seconds = pod["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
            pod["metadata"].setdefault("deletionTimestamp", now())
            pod["metadata"].setdefault("deletionGracePeriodSeconds", seconds)

        try:
            self.store.update("pods", namespace, name, mark)
        except Missing:
            return

    def event(self, namespace: str, found: Manifest, reason: str, message: str) -> None:
        kind, name, uid = found["kind"], found["metadata"]["name"], found["metadata"]["uid"]
        suffix = "".join(random.choices(string.hexdigits.lower(), k=8))
        body = {
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": f"{name}.{suffix}"},
            "involvedObject": {"kind": kind, "name": name, "namespace": namespace, "uid": uid},
            "reason": reason, "message": message, "type": "Warning", "lastTimestamp": now(), "firstTimestamp": now(),
            "count": 1,
        }  # fmt: skip
        known = [event for event in self.store.list("events", namespace) if event["message"] == message]
        if not [event for event in known if event["involvedObject"]["uid"] == uid]:
            self.store.create("events", namespace, body)

    def _queue(self, namespace: str, job: Manifest) -> None:
        """A job with a queue is started when the queue has room; its state stands in a Workload."""
        queue = (job["metadata"].get("labels") or {}).get(QUEUE_LABEL)
        if queue is None or not job["spec"].get("suspend"):
            return
        name, uid = _workload_name(job), job["metadata"]["uid"]
        closed = queue in self.closed_queues or self.store.find("localqueues", namespace, queue) is None
        status = {
            "type": "QuotaReserved",
            "status": "False" if closed else "True",
            "reason": "Pending" if closed else "QuotaReserved",
            "message": "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor a100, 8 more needed" if closed else "",
        }  # fmt: skip
        body = {
            "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload",
            "metadata": {"name": name, "labels": {"kueue.x-k8s.io/job-uid": uid}},
            "spec": {"queueName": queue},
            "status": {"conditions": [status]},
        }  # fmt: skip
        if self.store.find("workloads", namespace, name) is None:
            self.store.create("workloads", namespace, body)
        if not closed:
            self.store.update("jobs", namespace, job["metadata"]["name"], lambda j: j["spec"].update(suspend=False))  # fmt: skip

    def pending(self, namespace: str, queue: str) -> Manifest:
        """The answer of Kueue's visibility server: who waits, in the order of coming."""
        suspended = {
            _workload_name(job) for job in self.store.list("jobs", namespace) if job["spec"].get("suspend")
        }
        workloads = self.store.list("workloads", namespace)
        waiting = [found for found in workloads if found["metadata"]["name"] in suspended]
        waiting.sort(key=lambda found: int(found["metadata"]["resourceVersion"]))
        items: list[Manifest] = []
        for place, workload in enumerate(waiting):
            if workload["spec"]["queueName"] == queue:
                items.append({
                    "metadata": {"name": workload["metadata"]["name"], "namespace": namespace}, "priority": 0,
                    "localQueueName": queue, "positionInClusterQueue": place, "positionInLocalQueue": len(items),
                })  # fmt: skip
        return {"kind": "PendingWorkloadsSummary", "metadata": {}, "items": items}

    def _job_set(self, namespace: str, found: Manifest) -> None:
        """The one replicated job of a JobSet: made anew when somebody deletes it, until it has ended."""
        name = found["metadata"]["name"]
        (replicated,) = found["spec"]["replicatedJobs"]
        child = f"{name}-{replicated['name']}-0"
        made = self.store.find("jobs", namespace, child)
        if made is not None:
            ends = {one["type"] for one in made["status"].get("conditions") or []} & {"Complete", "Failed"}
            if ends and not found["status"].get("terminalState"):
                self.store.update("jobsets", namespace, name, lambda js: js["status"].update(terminalState=ends.pop()))  # fmt: skip
            return
        if found["status"].get("terminalState"):
            return
        owner = {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "name": name, "uid": found["metadata"]["uid"]}  # fmt: skip
        body = copy.deepcopy(replicated["template"])
        body["metadata"] = {**body.get("metadata", {}), "name": child, "ownerReferences": [owner]}
        body["spec"]["template"]["spec"]["subdomain"] = name
        self.store.create("jobs", namespace, {"apiVersion": "batch/v1", "kind": "Job", **body})


def _workload_name(job: Manifest) -> str:
    return f"job-{job['metadata']['name']}"[:63].strip("-")


class _Reconcile:
    """One Job, one step nearer to what its spec says."""

    def __init__(self, controllers: Controllers, namespace: str, job: Manifest) -> None:
        self.controllers, self.store = controllers, controllers.store
        self.namespace, self.job, self.spec = namespace, job, job["spec"]
        self.name = job["metadata"]["name"]
        self.pods = [
            pod
            for pod in self.store.list("pods", namespace)
            if any(owner["uid"] == job["metadata"]["uid"] for owner in pod["metadata"].get("ownerReferences") or [])
        ]  # fmt: skip

    def step(self) -> None:
        status = self.job["status"]
        if any(found["type"] in ("Complete", "Failed") for found in status.get("conditions") or []):
            return
        if self.spec.get("suspend"):
            return
        if "startTime" not in status:
            self._update(startTime=now(), expected={}, failures={})
            return
        done = {self._index(pod) for pod in self.pods if pod["status"].get("phase") == "Succeeded"}
        active = [pod for pod in self.pods if pod["status"].get("phase") not in ("Succeeded", "Failed")]
        self._update(active=len(active), succeeded=len(done), failed=len(self._failed()))
        target = next((f for f in status.get("conditions") or [] if f["type"] == "FailureTarget"), None)
        if target is not None:
            if not active:
                self._end("Failed", target["reason"], target["message"])
            return
        if len(done) >= self._completions():
            self._end("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
        elif verdict := self._verdict():
            for pod in active:
                self.controllers.delete("pods", self.namespace, pod["metadata"]["name"])
            self._condition("FailureTarget", *verdict)
        else:
            self._create(done)

    def _completions(self) -> int:
        return int(self.spec.get("completions", 1))

    def _index(self, pod: Manifest) -> int:
        return int((pod["metadata"].get("labels") or {}).get(INDEX, 0))

    def _update(self, **status: Any) -> None:
        if any(self.job["status"].get(key) != value for key, value in status.items()):
            self._change(lambda job: job["status"].update(status))

    def _change(self, change: Any) -> None:
        try:
            self.job = self.store.update("jobs", self.namespace, self.name, change)
        except Missing:
            return

    def _condition(self, kind: str, reason: str, message: str) -> None:
        found = {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now()}  # fmt: skip
        self._change(lambda job: job["status"].setdefault("conditions", []).append(found))

    def _end(self, kind: str, reason: str, message: str) -> None:
        self._condition("SuccessCriteriaMet" if kind == "Complete" else "FailureTarget", reason, message)
        self._condition(kind, reason, message)

    def _failed(self) -> list[Manifest]:
        return [
            pod
            for pod in self.pods
            if pod["status"].get("phase") == "Failed"
            or (pod["metadata"].get("deletionTimestamp") and pod["status"].get("phase") == "Pending")
        ]

    def _verdict(self) -> tuple[str, str] | None:
        """Why the job has failed, if it has."""
        deadline = self.spec.get("activeDeadlineSeconds")
        started = datetime.datetime.fromisoformat(self.job["status"]["startTime"].replace("Z", "+00:00"))
        if deadline and (datetime.datetime.now(datetime.UTC) - started).total_seconds() > deadline:
            return "DeadlineExceeded", "Job was active longer than specified deadline"
        per_index: dict[int, int] = {}
        counted = 0
        for pod in self._failed():
            action = self._rule(pod)
            if action == "FailJob":
                return "PodFailurePolicy", f"Container main for pod {pod['metadata']['name']} failed"
            if action == "Ignore":
                continue
            index = self._index(pod)
            per_index[index] = per_index.get(index, 0) + (10_000 if action == "FailIndex" else 1)
            counted += 1
        # A pod that vanished without a trace counts as failed, too.
        expected = self.job["status"].get("expected") or {}
        present = {pod["metadata"]["name"] for pod in self.pods}
        lost = [index for name, index in expected.items() if name not in present]
        counted += len(lost)
        for index in lost:
            per_index[index] = per_index.get(index, 0) + 1
        limit = self.spec.get("backoffLimitPerIndex")
        if limit is None:
            if counted > self.spec.get("backoffLimit", 6):
                return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
            return None
        failed = sorted(index for index, count in per_index.items() if count > limit)
        self._update(failedIndexes=",".join(map(str, failed)))
        if len(failed) > self.spec.get("maxFailedIndexes", 10**9):
            return "MaxFailedIndexesExceeded", f"Job has failed indexes {failed}"
        return None

    def _rule(self, pod: Manifest) -> str | None:
        statuses = pod["status"].get("containerStatuses") or []
        codes = [s["state"]["terminated"]["exitCode"] for s in statuses if "terminated" in s.get("state", {})]
        conditions = {(c["type"], c["status"]) for c in pod["status"].get("conditions") or []}
        for rule in (self.spec.get("podFailurePolicy") or {}).get("rules") or []:
            if "onExitCodes" in rule and set(codes) & set(rule["onExitCodes"]["values"]):
                return str(rule["action"])
            if any((c["type"], c["status"]) in conditions for c in rule.get("onPodConditions") or []):
                return str(rule["action"])
        return None

    def _create(self, done: set[int]) -> None:
        busy = {self._index(pod) for pod in self.pods if pod not in self._failed()}
        for index in range(self._completions()):
            if index in done or index in busy:
                continue
            if len(busy - done) >= self.spec.get("parallelism", 1):
                return
            busy.add(index)
            try:
                self._create_pod(index)
            except Refused as refused:
                self.controllers.event(
                    self.namespace, self.job, "FailedCreate", f"Error creating: {refused.message}"
                )

    def _create_pod(self, index: int) -> None:
        template = copy.deepcopy(self.spec["template"])
        suffix = "".join(random.choices(string.ascii_lowercase, k=5))
        indexed = self.spec.get("completionMode") == "Indexed"
        name = f"{self.name}-{index}-{suffix}" if indexed else f"{self.name}-{suffix}"
        spec = template["spec"]
        admit_pod(self.store, self.namespace, name, spec, self.controllers.accounts)
        if self.controllers.policy:
            raise Refused(422, f'pods "{name}" is forbidden: {self.controllers.policy}')
        if indexed:
            spec["hostname"] = f"{self.name}-{index}"
        metadata = template.get("metadata") or {}
        labels = {
            **(metadata.get("labels") or {}),
            "batch.kubernetes.io/job-name": self.name,
            "job-name": self.name,
            "batch.kubernetes.io/controller-uid": self.job["metadata"]["uid"],
            **({INDEX: str(index)} if indexed else {}),
        }
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": self.name, "uid": self.job["metadata"]["uid"], "controller": True}  # fmt: skip
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**metadata, "name": name, "labels": labels, "ownerReferences": [owner]},
            "spec": spec,
            "status": {"phase": "Pending"},
        }
        self.store.create("pods", self.namespace, body)
        self.controllers.pods_made += 1
        self._change(lambda job: job["status"].setdefault("expected", {}).update({name: index}))
