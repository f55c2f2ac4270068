"""A job as Kubernetes objects: a pure function of what is launched and where.

A group of nodes is one Indexed Job and a headless Service, which gives each pod a stable name; torchrun does the
rest, without an operator and without ssh. Any failure ends the whole group (`backoffLimit: 0`): whether it is started
again is decided in one place, the client. Independent parts of a data stage are the same Job with retries per index.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pipelines.errors import BAD_INPUT_EXIT_CODE
from pipelines.lake import location
from pipelines.lake.identity import document_sha256
from pipelines.launch import naming
from pipelines.launch.cluster import Cluster
from pipelines.launch.pod import CONTAINER, PORT, pod_template, role
from pipelines.launch.spec import JobSpec

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """The objects of one attempt. The Service belongs to the Job and goes with it."""

    job: Manifest
    service: Manifest | None
    digest: str

    @property
    def name(self) -> str:
        return str(self.job["metadata"]["name"])


def digest(job: JobSpec, cluster: Cluster) -> str:
    """Of all that decides what runs: two attempts, and two runs that want the same, have the same."""
    return document_sha256(pod_template(job, cluster, "job", "channel", "a", parts=1)["spec"])


def render(
    job: JobSpec,
    cluster: Cluster,
    attempt: int,
    *,
    token: str = "",
    owner: Manifest | None = None,
    parts: int = 1,
) -> Rendered:
    """The objects of attempt number `attempt`.

    `token` tells its channel from that of an earlier attempt of the same number. `owner` is an owner reference: when that object is deleted, the cluster deletes the job. With `parts`
    greater than one, the pods are independent and each does its part of a data stage.

    Raises:
        BadInput: the spec document is too large, or a path in it means another place in a pod.
    """
    suffix = f"p{attempt}" if parts > 1 else f"a{attempt}"
    name = f"{naming.base_name(job)}-{suffix}"
    labels = {
        naming.MANAGED_BY_LABEL: naming.MANAGED_BY,
        naming.JOB_LABEL: naming.base_name(job),
        naming.ATTEMPT_LABEL: suffix,
    }
    queue = cluster.queue_of(job.resources)
    spec_digest = digest(job, cluster)
    where = channel(job, f"{suffix}-{token}" if token else suffix)
    metadata: Manifest = {
        "name": name,
        "namespace": cluster.namespace,
        "labels": {**labels, **({naming.QUEUE_LABEL: queue} if queue else {})},
        "annotations": {
            naming.DIGEST_ANNOTATION: spec_digest,
            naming.ASSET_ANNOTATION: job.name,
            naming.CHANNEL_ANNOTATION: where,
        },
    }
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    template = pod_template(job, cluster, name, where, suffix, parts=parts)
    template["metadata"]["labels"] = {**labels, "vlm/role": role(job)}
    body = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completionMode": "Indexed",
            **(_parts(parts, job.resources.pods_at_once) if parts > 1 else _gang(job.resources.nodes)),
            "activeDeadlineSeconds": math.ceil(job.resources.deadline_hours * 3600),
            "ttlSecondsAfterFinished": cluster.keep_seconds,
            # Kueue starts it when there is room; without a queue it starts at once.
            "suspend": queue is not None,
            "template": template,
        },
    }
    service = None if parts > 1 or job.resources.nodes == 1 else _service(name, cluster.namespace, labels)
    return Rendered(body, service, spec_digest)


def channel(job: JobSpec, suffix: str) -> str:
    """Where the pods of an attempt write what is followed while they run."""
    return f"{location.url(job.spec.output).rstrip('/')}/_launch/{naming.base_name(job)}-{suffix}"


def _gang(nodes: int) -> Manifest:
    return {
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                _rule("FailJob"),
                {
                    "action": "FailJob",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
            ]
        },
    }


def _parts(parts: int, at_once: int) -> Manifest:
    return {
        "completions": parts,
        "parallelism": at_once,
        "backoffLimitPerIndex": 3,
        "maxFailedIndexes": 0,
        "podFailurePolicy": {
            "rules": [
                _rule("FailIndex"),
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
    }


def _rule(action: str) -> Manifest:
    codes = {"containerName": CONTAINER, "operator": "In", "values": [BAD_INPUT_EXIT_CODE]}
    return {"action": action, "onExitCodes": codes}


def _service(name: str, namespace: str, labels: dict[str, str]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "clusterIP": "None",
            # The first node is looked up before it is ready: it becomes ready by being found.
            "publishNotReadyAddresses": True,
            "selector": {naming.POD_JOB_LABEL: name},
            "ports": [{"name": "rendezvous", "port": PORT}],
        },
    }
