"""One attempt at a job in the cluster: created or found, followed, ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipelines.launch import naming
from pipelines.launch.api import Api
from pipelines.launch.channel import Reader
from pipelines.launch.cluster import Cluster
from pipelines.launch.jobset import set_of
from pipelines.launch.outcome import End, PodEnd, classify, condition, container, pod_end, seconds_of
from pipelines.launch.refusals import Gone
from pipelines.launch.spec import JobSpec, Report
from pipelines.launch.waiting import Waiting

Manifest = dict[str, Any]
OVERDUE_SECONDS = 60.0
"""After its time to stop is over, a pod is gone within seconds, unless its node does not answer."""


@dataclass
class Attempt:
    """A Job in the cluster that this run follows, perhaps with others."""

    api: Api
    cluster: Cluster
    spec: JobSpec
    manifest: Manifest
    found: bool
    """Whether it ran already when this run came."""
    parts: int = 1
    in_cluster: bool = False
    """Whether the Dagster run that follows is itself a Job of this cluster."""
    ran: bool = False
    """Whether pods for this work ever ran, in this attempt or before it: what keeps more from starting is then an outage, no
    mistake. To have a node is not to run: the image is pulled there."""
    pods: list[Manifest] = field(default_factory=list)
    ends: dict[int, Report] = field(default_factory=dict)
    """What each pod said last, by index."""
    disrupted: dict[str, PodEnd] = field(default_factory=dict)
    """Pods that a disruption was to end, by name: the cluster may have forgotten them when the job ends."""
    held: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    """From when until when each pod had its node, by name; no end while it has it."""
    seen: bool = False
    """Whether all of it could be looked at once."""
    _leaving: dict[str, float] = field(default_factory=dict)
    """Since when each pod that is to go was seen so, by name."""
    _beat: float = 0.0
    _deaf: bool = False

    def __post_init__(self) -> None:
        self._reader = Reader(self.manifest["metadata"]["annotations"][naming.CHANNEL_ANNOTATION])
        self._waiting = Waiting(self.api, self.cluster, self.spec)
        self._follower = naming.FOLLOWER_PREFIX + (naming.label_value(self.spec.requested_by) or "nobody")
        # Before a second attempt there was a first.
        self.ran = self.ran or (self.found and self.number > 0)

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def number(self) -> int:
        return number_of(self.manifest)

    @property
    def created(self) -> float:
        """Seconds since the epoch, by the cluster's clock."""
        return seconds_of(self.manifest["metadata"].get("creationTimestamp")) or time.time()

    @property
    def running_since(self) -> float | None:
        """When as many pods as work at once had been started, in seconds since the epoch."""
        starts = sorted(since for since, _ in self.held.values())
        wanted = self.manifest["spec"]["parallelism"]
        return starts[wanted - 1] if len(starts) >= wanted else None

    def held_seconds(self, now: float) -> float:
        """Seconds of all pods together."""
        return sum(max((now if until is None else until) - since, 0.0) for since, until in self.held.values())

    def poll(self, on_report: Callable[[Report], None]) -> End | None:
        """Look once: pass on what the pods report and what the job waits for; return how it ended, if it has.

        Raises:
            NeverStarts: and why.
            Denied: this account may not look.
            Unreachable: the API has not answered for longer than the patience; look again.
        """
        self.listen(on_report)
        try:
            self.manifest = self.api.job(self.name)
        except Gone:
            return classify(None, self.pod_ends())
        self._see(self.api.pods(self.name))
        if condition(self.manifest, "Complete") or condition(self.manifest, "Failed"):
            return self._ended(on_report)
        if self._waits_for_the_lost():
            self.listen(on_report)
            return classify(None, self.pod_ends())
        self._heartbeat()
        self.seen = True
        for words, figures in self._waiting.words(self.manifest, self.pods, ran=self.ran):
            on_report({"kind": "state", "stage": self.spec.name, "text": words, "figures": figures})
        return None

    def listen(self, on_report: Callable[[Report], None]) -> None:
        """Pass on what the pods have reported since."""
        for record in self._reader.read():
            # Also of pods that the cluster has forgotten, before this run came.
            self.ran = True
            if record["kind"] == "end":
                self.ends[record["index"]] = record
            elif record["kind"] in ("progress", "message", "log"):
                on_report(record)
        if bool(self._reader.trouble) != self._deaf:
            self._deaf = not self._deaf
            words = (
                f"what the pods of {self.name} report cannot be read now ({self._reader.trouble}); the job goes on"
                if self._deaf
                else f"what the pods of {self.name} report can be read again"
            )
            on_report({"kind": "state", "stage": self.spec.name, "text": words, "figures": {}})

    def _see(self, pods: list[Manifest]) -> None:
        self.pods = pods
        self.disrupted |= {end.name: end for end in map(pod_end, pods) if end.disrupted}
        leaving = {pod["metadata"]["name"] for pod in pods if pod["metadata"].get("deletionTimestamp")}
        self._leaving = {name: self._leaving.get(name, time.monotonic()) for name in leaving}
        gone = self.held.keys() - {pod["metadata"]["name"] for pod in pods}
        self.held |= {name: (self.held[name][0], self.held[name][1] or time.time()) for name in gone}
        for pod in pods:
            since = seconds_of(pod.get("status", {}).get("startTime"))
            self.ran = self.ran or not container(pod).keys().isdisjoint({"running", "terminated"})
            until = seconds_of((container(pod).get("terminated") or {}).get("finishedAt"))
            if since is not None:
                self.held[pod["metadata"]["name"]] = (since, until)

    def _is_lost(self, pod: Manifest) -> bool:
        """Whether the pod should long be gone: its node does not answer."""
        since = self._leaving.get(pod["metadata"]["name"])
        grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
        return since is not None and time.monotonic() - since > grace + OVERDUE_SECONDS

    def _waits_for_the_lost(self) -> bool:
        """Whether the job would wait for pods that are lost: the cluster lets it fail only when somebody deletes their node.

        A group is at an end with the first of them; a divided stage when nothing else of it is under way.
        """
        under_way = [
            pod for pod in self.pods if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        ]
        lost = [self._is_lost(pod) for pod in under_way]
        return any(lost) and (self.parts == 1 or all(lost))

    def pod_ends(self) -> list[PodEnd]:
        """How the pods stand, or ended; where the cluster has lost a pod, what it said itself, and why it went."""
        seen = [pod_end(pod) for pod in self.pods]
        known = {pod.index for pod in seen if pod.code is not None}
        there = {pod.name for pod in seen}
        seen += [end for name, end in self.disrupted.items() if name not in there]
        return seen + [
            PodEnd(f"{self.name}-{index}", index, end["code"], "", disrupted=False)
            for index, end in self.ends.items()
            if index not in known
        ]

    def _ended(self, on_report: Callable[[Report], None]) -> End:
        """The job has ended; its last pods may still be on their way out, and say why."""
        end = classify(self.manifest, self.pod_ends())
        deadline = time.monotonic() + self.cluster.grace_seconds
        while end is not End.DONE and time.monotonic() < deadline:
            if all(pod.code is not None for pod in (pod_end(pod) for pod in self.pods)):
                break
            time.sleep(min(1.0, self.cluster.poll_seconds))
            self._see(self.api.pods(self.name) or self.pods)
            if not any(pod["status"].get("phase") in ("Pending", "Running") for pod in self.pods):
                break
        self.listen(on_report)
        return classify(self.manifest, self.pod_ends())

    def last_words(self, pods: int = 3, lines: int = 20) -> str:
        """The last lines of the pods that failed, and how each ended."""
        failed = [pod for pod in self.pod_ends() if pod.code != 0]
        # What failed by itself says more than what was lost or stopped for it.
        failed.sort(key=lambda pod: (pod.code in (None, 75, 76, 143), pod.index))
        told = []
        for pod in failed[:pods]:
            end = self.ends.get(pod.index)
            text = end["text"] if end else self.api.log(pod.name, lines) or pod.message
            told.append(f"{pod.words()}\n" + "\n".join(text.strip().splitlines()[-lines:]))
        if len(failed) > pods:
            told.append("; ".join(pod.words() for pod in failed[pods : pods + 20]))
        return "\n".join(told)

    def _heartbeat(self) -> None:
        """Tell others that this run still waits for the job: one that is cancelled then leaves it alone."""
        now = time.monotonic()
        if now - self._beat >= self.cluster.heartbeat_seconds:
            self._beat = now
            self._annotate(str(time.time_ns()))

    def _annotate(self, value: str | None) -> None:
        try:
            self.api.patch_job(self.name, {"metadata": {"annotations": {self._follower: value}}})
        except Gone:
            return

    def others_follow(self) -> bool:
        """Whether another run waits for this job: its note is renewed while this one looks."""
        before = self._others()
        if not before:
            return False
        deadline = time.monotonic() + 2 * self.cluster.heartbeat_seconds
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self.cluster.heartbeat_seconds / 2))
            if self._others() != before:
                return True
        return False

    def _others(self) -> dict[str, str]:
        try:
            annotations = self.api.job(self.name)["metadata"].get("annotations") or {}
        except Gone:
            return {}
        return {
            key: value
            for key, value in annotations.items()
            if key.startswith(naming.FOLLOWER_PREFIX) and key != self._follower
        }

    def leave(self) -> None:
        """Follow it no longer."""
        self._annotate(None)

    @property
    def deletable(self) -> tuple[str, str]:
        """Kind and name of what a person would delete."""
        made_by = set_of(self.manifest)
        return ("job", self.name) if made_by is None else ("jobset", made_by)

    def remove(self, on_report: Callable[[Report], None]) -> bool:
        """Delete the job and wait until its pods are gone; False if some will not go."""
        self.api.delete_work(self.manifest)
        deadline = time.monotonic() + self.cluster.grace_seconds + 60
        while time.monotonic() < deadline:
            self.listen(on_report)
            left = self.api.pods(self.name)
            if not left:
                self.listen(on_report)
                return True
            self._see(left)
            if all(map(self._is_lost, left)):
                return False
            time.sleep(min(1.0, self.cluster.poll_seconds))
        return False


def number_of(job: Manifest) -> int:
    """Which attempt a Job is."""
    return int(job["metadata"]["labels"][naming.ATTEMPT_LABEL][1:])
