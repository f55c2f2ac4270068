"""What a job in the cluster waits for, in words; and what it would wait for in vain."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

from pipelines.errors import BAD_INPUT_EXIT_CODE
from pipelines.launch.api import Api
from pipelines.launch.cluster import Cluster, as_bytes
from pipelines.launch.kueue import Kueue, Turn
from pipelines.launch.naming import QUEUE_LABEL
from pipelines.launch.outcome import container, index_of, pod_end
from pipelines.launch.refusals import NeverStarts
from pipelines.launch.spec import JobSpec

Manifest = dict[str, Any]
PULL_FAILURES = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
REFUSED = re.compile(r"denied (the )?request|is forbidden|is invalid")
"""A pod that an admission refuses, by whatever rule: LimitRange, policy, webhook."""
CONFIG_FAILURES = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})

NO_CLAIM = re.compile(r'persistentvolumeclaim "([^"]+)" not found')


def _unplaced(pod: Manifest) -> str:
    """Why the pod has no node; "" if it has one."""
    for found in pod.get("status", {}).get("conditions") or []:
        if found["type"] == "PodScheduled" and found["status"] == "False":
            return str(found.get("message") or "")
    return ""


class Waiting:
    """Says each state once. Waiting itself has no limit: a queue may take days."""

    def __init__(self, api: Api, cluster: Cluster, spec: JobSpec) -> None:
        self._api, self._cluster, self._spec = api, cluster, spec
        self._kueue = Kueue(api)
        self._said = ""
        self._told: set[str] = set()
        self._since: float | None = None
        self._refused_since: float | None = None
        self._asked = 0.0
        self._turn: Turn | None = None

    def words(
        self, job: Manifest, pods: list[Manifest], *, ran: bool = False
    ) -> Iterator[tuple[str, dict[str, float]]]:
        """What is new, with its place in the queue where it has one.

        `ran`: pods for this work ran before. What keeps more of them from starting is then no mistake in a request, but an outage
        (of a registry, a webhook), and is waited for.

        Raises:
            NeverStarts: what the job waits for will not come.
        """
        for words in self._tried_again(job, pods):
            yield words, {}
        try:
            words = self._state(job, pods)
        except NeverStarts as error:
            if not ran:
                raise
            words = f"{job['metadata']['name']} waits, though its pods ran before: {error.what}"
        if words != self._said:
            self._said = words
            queued = job["spec"].get("suspend") and self._turn is not None
            yield words, self._turn.figures() if queued and self._turn else {}

    def _tried_again(self, job: Manifest, pods: list[Manifest]) -> Iterator[str]:
        """Parts of a divided stage that failed: the cluster tries each of them again, and no other; bad input, never."""
        if "backoffLimitPerIndex" not in job["spec"]:
            return
        for end in map(pod_end, pods):
            if end.code in (None, 0, BAD_INPUT_EXIT_CODE) or end.name in self._told:
                continue
            self._told.add(end.name)
            why = f"was disrupted ({end.reason})" if end.disrupted else f"failed (exit code {end.code})"
            yield f"{job['metadata']['name']}: part {end.index} {why} and is tried again"

    def _state(self, job: Manifest, pods: list[Manifest]) -> str:
        name = job["metadata"]["name"]
        if job["spec"].get("suspend"):
            return f"{name} is queued{self._queue_words(job)}"
        wanted = job["spec"]["parallelism"]
        if len(pods) < wanted and not job["status"].get("succeeded"):
            why = self._look_at_refusals(job)
            return f"{name}: {len(pods)} of {wanted} pods are created" + (f": {why}" if why else "")
        self._refused_since = None
        self._look_at_failures(pods)
        unplaced = [message for pod in pods if (message := _unplaced(pod))]
        if unplaced:
            return f"{name}: {len(unplaced)} of {wanted} pods wait for a node: {unplaced[0]}"
        running = sum("running" in container(pod) for pod in pods)
        if running < wanted and not any("terminated" in container(pod) for pod in pods):
            return f"{name}: {running} of {wanted} pods run, the others are being started"
        nodes = sorted({str(pod["spec"].get("nodeName") or "?") for pod in pods})
        return f"{name} runs on {wanted} pods ({', '.join(nodes[:4])}{', …' if len(nodes) > 4 else ''})"

    def _queue_words(self, job: Manifest) -> str:
        queue = (job["metadata"].get("labels") or {}).get(QUEUE_LABEL)
        if queue is None:
            return " (suspended)"
        now = time.monotonic()
        if self._turn is None or now - self._asked >= self._cluster.heartbeat_seconds:
            self._asked = now
            self._turn = self._kueue.turn(job, queue)
        return f" {self._turn.words()}"

    def _look_at_refusals(self, job: Manifest) -> str:
        """Why the job's pods are not created, in the cluster's own words.

        Raises:
            NeverStarts: they never will be.
        """
        events = self._api.events(job["metadata"]["uid"])
        # Each try names another pod: said once, all the same.
        messages = [
            re.sub(r'(pods "[^"]*)-[a-z0-9]{5}"', r'\1"', str(event.get("message")))
            for event in events
            if event.get("reason") == "FailedCreate"
        ]
        for message in reversed(messages):
            where = f"job {job['metadata']['name']}"
            if "violates PodSecurity" in message:
                raise NeverStarts(
                    f"the namespace admits no such pod: {message}",
                    where=where,
                    remedy="take out `capabilities` in the cluster's file, or use the namespace of the InfiniBand overlay",
                )
            if match := re.search(r'serviceaccount "([^"]+)" not found', message):
                raise NeverStarts(
                    f"the service account {match[1]!r} does not exist",
                    where=where,
                    remedy="apply k8s/base/rbac.yaml, or mend the name in the cluster's file",
                )
            if match := re.search(r'priority ?class(?:es)?(?:\.scheduling\.k8s\.io)? "?([\w.-]+)"? (?:was )?not found|no PriorityClass with name ([\w.-]+)', message, re.IGNORECASE):  # fmt: skip
                raise NeverStarts(
                    f"the priority class {match[1] or match[2]!r} does not exist",
                    where=f"{self._spec.asked}.priority, or the cluster's file: priority",
                    remedy="apply k8s/base/priorities.yaml, or mend the name; `kubectl get priorityclass` lists them",
                )
            if "exceeded quota" in message and (words := beyond_quota(message)):
                raise NeverStarts(
                    f"one pod asks for more than the namespace's whole quota: {words}",
                    where=where,
                    remedy="ask for less in the recipe's `resources`, or have the quota raised (k8s/base/quota.yaml)",
                )
        newest = messages[-1] if messages else ""
        if not REFUSED.search(newest) or "exceeded quota" in newest:
            # Nothing yet, or what passes: a full quota, a webhook that does not answer.
            self._refused_since = None
            return newest
        self._refused_since = self._refused_since or time.monotonic()
        if time.monotonic() - self._refused_since >= self._cluster.start_patience_seconds:
            raise NeverStarts(
                f"the namespace admits no such pod: {newest}",
                where=f"job {job['metadata']['name']}",
                remedy="mend the value named above in the recipe's `resources` or in the cluster's file, or have the rule "
                f"changed: kubectl -n {self._cluster.namespace} get limitranges; kubectl get validatingadmissionpolicies",
            )
        return newest

    def _look_at_failures(self, pods: list[Manifest]) -> None:
        stuck = [
            (pod, waiting)
            for pod in pods
            if (waiting := container(pod).get("waiting"))
            and waiting.get("reason") in PULL_FAILURES | CONFIG_FAILURES
        ]
        # No node will ever do for these.
        stuck += [
            (pod, {"reason": "Unschedulable", "message": message})
            for pod in pods
            if NO_CLAIM.search(message := _unplaced(pod))
        ]
        if not stuck:
            self._since = None
            return
        self._since = self._since or time.monotonic()
        if time.monotonic() - self._since < self._cluster.start_patience_seconds:
            return
        pod, waiting = stuck[0]
        where = f"pod {index_of(pod)} of {pod['metadata']['name'].rpartition('-')[0]}"
        message = str(waiting.get("message") or waiting["reason"])
        if waiting["reason"] in PULL_FAILURES:
            raise NeverStarts(
                f"the image cannot be pulled: {message}",
                where=f"{where}: {self._cluster.image}",
                remedy="push it, or mend `image` or `image_pull_secrets` in the cluster's file; "
                "the nodes must be able to reach the registry",
            )
        if match := re.search(r'secret "([^"]+)" not found', message):
            raise NeverStarts(
                f"the secret {match[1]!r} does not exist in the namespace {self._cluster.namespace!r}",
                where=where,
                remedy=f"create it: kubectl -n {self._cluster.namespace} create secret generic {match[1]} "
                "--from-literal=NAME=VALUE; or take it out of `secrets` in the cluster's file",
            )
        if match := NO_CLAIM.search(message):
            raise NeverStarts(
                f"the volume claim {match[1]!r} does not exist in the namespace {self._cluster.namespace!r}",
                where=where,
                remedy="make it (k8s/jobs/weights.yaml shows how), or mend `volumes` in the cluster's file; "
                f"`kubectl -n {self._cluster.namespace} get pvc` lists them",
            )
        raise NeverStarts(
            f"the container cannot be created: {message}",
            where=where,
            remedy=f"kubectl -n {self._cluster.namespace} describe pod {pod['metadata']['name']}",
        )


def beyond_quota(message: str) -> str:
    """Of `exceeded quota: q, requested: cpu=9, used: cpu=0, limited: cpu=8`: what can never be had; "" if all can."""
    groups = dict(re.findall(r"(requested|limited): ([^ ]+)", message))
    if len(groups) < 2:
        return ""
    requested, limited = (
        dict(item.split("=", 1) for item in groups[name].rstrip(",").split(",") if "=" in item)
        for name in ("requested", "limited")
    )
    found = []
    for name, asked in requested.items():
        if name in limited and as_bytes(asked) > as_bytes(limited[name]):
            found.append(f"{name} {asked} of at most {limited[name]}")
    return ", ".join(found)
