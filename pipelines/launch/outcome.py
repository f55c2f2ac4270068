"""Why a group of pods ended, and what follows: done, run again, or a person has to look."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pipelines.errors import BAD_INPUT_EXIT_CODE, INTERRUPTED_EXIT_CODE
from pipelines.launch.contract import PEER_LOST_EXIT_CODE
from pipelines.launch.naming import INDEX_LABEL
from pipelines.launch.pod import CONTAINER

Manifest = dict[str, Any]
OUT_OF_MEMORY = "OOMKilled"
KILLED, TERMINATED = 137, 143


class End(Enum):
    """What follows from how the pods ended."""

    DONE = "done"
    BAD_INPUT = "bad input"
    """Running it again cannot help."""
    DISRUPTED = "disrupted"
    """The cluster took something away: run it again, from the checkpoint."""
    FAILED = "failed"
    """The stage itself: a person has to look."""
    DEADLINE = "deadline"


@dataclass(frozen=True)
class PodEnd:
    """How one pod ended."""

    name: str
    index: int
    code: int | None
    """Exit code of the stage; None if its container never ended by itself."""
    reason: str
    disrupted: bool
    message: str = ""

    def words(self) -> str:
        """`pod 3: exit code 137 (OOMKilled)`."""
        code = "no exit code" if self.code is None else f"exit code {self.code}"
        return f"pod {self.index}: {code}" + (f" ({self.reason})" if self.reason else "")


def condition(manifest: Manifest, kind: str) -> Manifest | None:
    """The condition of this type, if it is true."""
    for found in manifest.get("status", {}).get("conditions") or []:
        if found["type"] == kind and found["status"] == "True":
            return dict(found)
    return None


def seconds_of(timestamp: object) -> float | None:
    """`2026-01-02T03:04:05Z` in seconds since the epoch."""
    if not timestamp:
        return None
    return datetime.datetime.fromisoformat(str(timestamp).replace("Z", "+00:00")).timestamp()


def index_of(pod: Manifest) -> int:
    """The completion index of a pod."""
    metadata = pod["metadata"]
    for place in (metadata.get("labels") or {}, metadata.get("annotations") or {}):
        if INDEX_LABEL in place:
            return int(place[INDEX_LABEL])
    return 0


def container(pod: Manifest) -> Manifest:
    """The state of the stage's container: `waiting`, `running` or `terminated`, or nothing yet."""
    for status in pod.get("status", {}).get("containerStatuses") or []:
        if status["name"] == CONTAINER:
            return dict(status.get("state") or {})
    return {}


def pod_end(pod: Manifest) -> PodEnd:
    """How a pod ended, or stands."""
    terminated = container(pod).get("terminated") or {}
    status = pod.get("status", {})
    target = condition(pod, "DisruptionTarget")
    reason = (
        (target or {}).get("reason")
        or terminated.get("reason")
        or status.get("reason")
        or ("being deleted" if pod["metadata"].get("deletionTimestamp") else "")
    )
    return PodEnd(
        name=pod["metadata"]["name"],
        index=index_of(pod),
        code=terminated.get("exitCode"),
        reason="" if reason in ("Error", "Completed") else str(reason),
        disrupted=target is not None or status.get("reason") in ("NodeLost", "Evicted", "Preempting", "Shutdown"),
        message=str(terminated.get("message") or ""),
    )  # fmt: skip


def failed_indexes(job: Manifest) -> set[int]:
    """The parts that the cluster has given up: `1,3-5` of a Job's status."""
    found: set[int] = set()
    for span in str(job.get("status", {}).get("failedIndexes") or "").split(","):
        first, _, last = span.partition("-")
        if first:
            found |= set(range(int(first), int(last or first) + 1))
    return found


def classify(job: Manifest | None, pods: list[PodEnd]) -> End:
    """What follows from the end of `job` (None: it was deleted by someone else) and of its pods.

    When a node goes, the others of a group fail for want of it: so a disruption outweighs plain failures, and an
    exit for a lost peer is no failure. Of a divided stage the cluster itself tries disrupted parts again: it ends for those
    alone that it has given up. Bad input outweighs everything.
    """
    if job is not None and condition(job, "Complete"):
        return End.DONE
    if any(pod.code == BAD_INPUT_EXIT_CODE for pod in pods):
        return End.BAD_INPUT
    failed = condition(job, "Failed") if job is not None else None
    if failed is not None and failed.get("reason") == "DeadlineExceeded":
        return End.DEADLINE
    if job is not None and "backoffLimitPerIndex" in job["spec"]:
        given_up = failed_indexes(job)
        pods = [pod for pod in pods if not pod.disrupted and (not given_up or pod.index in given_up)]
    if job is None or any(pod.disrupted for pod in pods):
        return End.DISRUPTED
    passing = {0, None, INTERRUPTED_EXIT_CODE, PEER_LOST_EXIT_CODE, TERMINATED}
    for pod in pods:
        if pod.code not in passing and (pod.code != KILLED or pod.reason == OUT_OF_MEMORY):
            return End.FAILED
    return End.DISRUPTED
