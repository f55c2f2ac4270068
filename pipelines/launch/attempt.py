"""One attempt at a job in the cluster: created or found, followed, ended."""

from __future__ import annotations

import datetime
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipelines.errors import BadInput
from pipelines.launch import naming
from pipelines.launch.api import Api, Exists, Gone
from pipelines.launch.channel import Reader
from pipelines.launch.cluster import Cluster
from pipelines.launch.outcome import End, PodEnd, classify, condition, pod_end
from pipelines.launch.render import GROUP, Rendered, as_job_set, digest, job_name, render
from pipelines.launch.spec import JobSpec, Report
from pipelines.launch.waiting import Waiting

Manifest = dict[str, Any]
CONTROLLER_LOOKS = 60
"""Seconds in which the controller of JobSet must have made a Job."""


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
    pods: list[Manifest] = field(default_factory=list)
    ends: dict[int, Report] = field(default_factory=dict)
    """What each pod said last, by index."""
    _beat: float = 0.0

    def __post_init__(self) -> None:
        self._reader = Reader(self.manifest["metadata"]["annotations"][naming.CHANNEL_ANNOTATION])
        self._waiting = Waiting(self.api, self.cluster, self.spec)
        self._follower = naming.FOLLOWER_PREFIX + (naming.label_value(self.spec.requested_by) or "nobody")

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def number(self) -> int:
        return _number(self.manifest)

    @property
    def created(self) -> float:
        """Seconds since the epoch, by the cluster's clock."""
        return seconds_of(self.manifest["metadata"].get("creationTimestamp")) or time.time()

    @property
    def running_since(self) -> float | None:
        """When the last of the pods that run now, or ran, was started."""
        starts = [
            started
            for pod in self.pods
            if (started := seconds_of(pod.get("status", {}).get("startTime"))) is not None
        ]
        wanted = self.manifest["spec"]["completions"]
        return max(starts) if len(starts) >= wanted else None

    def poll(self, on_report: Callable[[Report], None]) -> End | None:
        """Look once: pass on what the pods report and what the job waits for; return how it ended, if it has.

        Raises:
            BadInput: it can never start, and why.
        """
        self.listen(on_report)
        try:
            self.manifest = self.api.job(self.name)
        except Gone:
            return classify(None, self.pod_ends())
        self.pods = self.api.pods(self.name)
        if condition(self.manifest, "Complete") or condition(self.manifest, "Failed"):
            return self._ended(on_report)
        self._heartbeat()
        for words in self._waiting.words(self.manifest, self.pods):
            on_report({"kind": "message", "stage": self.spec.name, "text": words})
        return None

    def listen(self, on_report: Callable[[Report], None]) -> None:
        """Pass on what the pods have reported since."""
        for record in self._reader.read():
            if record["kind"] == "end":
                self.ends[record["index"]] = record
            elif record["kind"] in ("progress", "message", "log"):
                on_report(record)

    def pod_ends(self) -> list[PodEnd]:
        """How the pods stand, or ended; where the cluster has lost a pod, what it said itself."""
        seen = [pod_end(pod) for pod in self.pods]
        known = {pod.index for pod in seen if pod.code is not None}
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
            self.pods = self.api.pods(self.name) or self.pods
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

    def remove(self, on_report: Callable[[Report], None]) -> bool:
        """Delete the job and wait until its pods are gone; False if some will not go."""
        if self.cluster.backend == "jobset":
            self.api.delete_job_set(self.name.removesuffix(f"-{GROUP}-0"))
        self.api.delete_job(self.name)
        deadline = time.monotonic() + self.cluster.grace_seconds + 60
        while time.monotonic() < deadline:
            self.listen(on_report)
            if not (left := self.api.pods(self.name)):
                self.listen(on_report)
                return True
            self.pods = left
            time.sleep(min(1.0, self.cluster.poll_seconds))
        return False


def start_or_find(api: Api, cluster: Cluster, spec: JobSpec, parts: int = 1, least: int = 0) -> Attempt:
    """The job that runs for this work, or a new one, with a number from `least` on: never a second.

    Raises:
        BadInput: one runs that was described otherwise.
    """
    base = naming.base_name(spec)
    owner = _owner(api, spec)
    kind = "p" if parts > 1 else "a"
    jobs = [
        job
        for job in api.jobs({naming.JOB_LABEL: base})
        if job["metadata"]["labels"][naming.ATTEMPT_LABEL].startswith(kind)
    ]
    running = [job for job in jobs if not _finished(job)]
    if running:
        return _attach(api, cluster, spec, max(running, key=_number), owner, parts)
    number = max(1 + max(map(_number, jobs), default=-1), least)
    rendered = render(
        spec, cluster, number, token=secrets.token_hex(4), owner=owner, parts=parts
    )  # fmt: skip
    name = job_name(rendered.name, cluster)
    try:
        if cluster.backend == "jobset":
            api.create_job_set(as_job_set(rendered))
            return Attempt(api, cluster, spec, _made_by_controller(api, name), found=False, parts=parts)
        made = api.create_job(rendered.job)
    except Exists:
        # Another run was faster.
        return _attach(api, cluster, spec, api.job(name), owner, parts)
    _serve(api, rendered, made)
    return Attempt(api, cluster, spec, made, found=False, parts=parts)


def _attach(
    api: Api, cluster: Cluster, spec: JobSpec, job: Manifest, owner: Manifest | None, parts: int
) -> Attempt:
    name, annotations = job["metadata"]["name"], job["metadata"].get("annotations") or {}
    if annotations.get(naming.DIGEST_ANNOTATION) != digest(spec, cluster):
        raise BadInput(
            f"the job {name} makes this table already, with another image, other resources or another environment",
            where=f"namespace {cluster.namespace}",
            remedy=f"wait for it, or stop it and run again (it goes on from its checkpoint): kubectl -n {cluster.namespace} "
            f"delete job {name}",
        )
    if owner is not None:
        owners = [
            found for found in job["metadata"].get("ownerReferences") or [] if found["uid"] != owner["uid"]
        ]
        job = api.patch_job(name, {"metadata": {"ownerReferences": [*owners, owner]}})
    # The run that made it may have been killed before it came to this.
    _serve(api, render(spec, cluster, _number(job), parts=parts), job)
    return Attempt(api, cluster, spec, job, found=True, parts=parts)


def _made_by_controller(api: Api, name: str) -> Manifest:
    """The Job of a JobSet, once its controller has made it.

    Raises:
        BadInput: it does not come.
    """
    for _ in range(CONTROLLER_LOOKS):
        try:
            return api.job(name)
        except Gone:
            time.sleep(1.0)
    raise BadInput(
        f"nothing makes the job {name} of its JobSet",
        where="the cluster's file: backend",
        remedy="install JobSet's controller, or set `backend: indexed_job`",
    )


def _serve(api: Api, rendered: Rendered, job: Manifest) -> None:
    if rendered.service is None or job["metadata"]["name"] != rendered.name:
        return
    reference = {
        "apiVersion": "batch/v1", "kind": "Job", "name": rendered.name, "uid": job["metadata"]["uid"],
    }  # fmt: skip
    service = rendered.service
    api.create_service({**service, "metadata": {**service["metadata"], "ownerReferences": [reference]}})


def _owner(api: Api, spec: JobSpec) -> Manifest | None:
    """The Job of the Dagster run, where the run is in this cluster: when it is deleted, so is the work."""
    if not spec.requested_by:
        return None
    try:
        job = api.job(f"dagster-run-{spec.requested_by}")
    except Gone:
        return None
    return {
        "apiVersion": "batch/v1", "kind": "Job",
        "name": job["metadata"]["name"], "uid": job["metadata"]["uid"],
    }  # fmt: skip


def _number(job: Manifest) -> int:
    return int(job["metadata"]["labels"][naming.ATTEMPT_LABEL][1:])


def _finished(job: Manifest) -> bool:
    return bool(
        condition(job, "Complete") or condition(job, "Failed") or job["metadata"].get("deletionTimestamp")
    )


def seconds_of(timestamp: object) -> float | None:
    """`2026-01-02T03:04:05Z` in seconds since the epoch."""
    if not timestamp:
        return None
    return datetime.datetime.fromisoformat(str(timestamp).replace("Z", "+00:00")).timestamp()
