"""A job as Kubernetes objects: a pure function of what is launched and where.

A group of nodes is one Indexed Job and a headless Service, which gives each pod a stable name; torchrun does the
rest, without an operator and without ssh. Any failure ends the whole group (`backoffLimit: 0`): whether it is started
again is decided in one place, the client. Independent parts of a data stage are the same Job with retries per index.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput
from pipelines.lake import location
from pipelines.lake.identity import document_sha256
from pipelines.launch import naming
from pipelines.launch.cluster import Cluster
from pipelines.launch.contract import (
    ATTEMPT_VARIABLE,
    CHANNEL_VARIABLE,
    JOIN_VARIABLE,
    MAX_SPEC_BYTES,
    MODULE_VARIABLE,
    NODES_VARIABLE,
    PARTS_VARIABLE,
    RANKS_VARIABLE,
    SCRATCH_VARIABLE,
    SPEC_VARIABLE,
)
from pipelines.launch.spec import JobSpec

CONTAINER = "main"
GROUP = "main"
"""Name of the one group of a JobSet."""
PORT = 29500
USER = 1000
DOWNLOADER_STAGE = "pipelines.download"
"""The one stage that reads the web: its pods have an account and a network policy of their own."""

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


def job_name(name: str, cluster: Cluster) -> str:
    """The Job of an attempt: its own name, or the one that a JobSet's controller gives it."""
    return f"{name}-{GROUP}-0" if cluster.backend == "jobset" else name


def as_job_set(rendered: Rendered) -> Manifest:
    """The same group as a JobSet: its controller makes the Job and the Service. Restarts stay with the client."""
    metadata, body = rendered.job["metadata"], rendered.job["spec"]
    child = {key: metadata[key] for key in ("labels", "annotations")}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "suspend": body["suspend"],
            "network": {
                "enableDNSHostnames": True,
                "publishNotReadyAddresses": True,
                "subdomain": rendered.name,
            },
            "failurePolicy": {"maxRestarts": 0},
            "ttlSecondsAfterFinished": body["ttlSecondsAfterFinished"],
            "replicatedJobs": [
                {
                    "name": GROUP,
                    "replicas": 1,
                    "template": {
                        "metadata": child,
                        "spec": {
                            key: value for key, value in body.items() if key != "ttlSecondsAfterFinished"
                        },
                    },
                }
            ],
        },
    }


def role(job: JobSpec) -> str:
    """What the pods are, for accounts and network policies: `gpu`, `downloader` or `data`."""
    if job.resources.gpus:
        return "gpu"
    return "downloader" if job.module == DOWNLOADER_STAGE else "data"


def digest(job: JobSpec, cluster: Cluster) -> str:
    """Of all that decides what runs: two attempts, and two runs that want the same, have the same."""
    return document_sha256(_pod_template(job, cluster, "job", "channel", "a", parts=1)["spec"])


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
    queue = job.resources.queue or cluster.queue
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
    template = _pod_template(job, cluster, name, where, suffix, parts=parts)
    template["metadata"]["labels"] = {**labels, "vlm/role": role(job)}
    body = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completionMode": "Indexed",
            **(_parts(parts) if parts > 1 else _gang(job.resources.nodes)),
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


def _parts(parts: int) -> Manifest:
    return {
        "completions": parts,
        "parallelism": parts,
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


def _environment(job: JobSpec, cluster: Cluster, name: str, where: str, suffix: str, parts: int) -> Manifest:
    document = job.spec.model_dump_json()
    if len(document.encode()) > MAX_SPEC_BYTES:
        raise BadInput(
            f"the spec of this job has {len(document.encode()):,} bytes; a pod's environment takes {MAX_SPEC_BYTES:,}",
            where=job.name,
            remedy="give it fewer inputs at once: train on fewer crawls, or merge them",
        )
    resources = job.resources
    made = {
        "HOME": "/tmp",  # noqa: S108 - of the pod, which has it to itself
        "TMPDIR": "/scratch",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(max(1, int(resources.cpus // max(resources.gpus, 1)))),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": "/scratch/huggingface",
        # Of tables in an object store: a file of the cluster may name a volume that outlives the pod.
        "LAKE_CACHE": "/scratch/lake",
        **({"NVIDIA_VISIBLE_DEVICES": "all"} if resources.gpus else {}),
        **cluster.environment,
    }
    for placement in cluster.placements(resources):
        made.update(placement.environment)
    made |= {
        MODULE_VARIABLE: job.module,
        # "$(" begins a reference to another variable; "$$(" is the text itself.
        SPEC_VARIABLE: document.replace("$(", "$$("),
        CHANNEL_VARIABLE: where,
        ATTEMPT_VARIABLE: suffix,
        SCRATCH_VARIABLE: "/scratch",
        NODES_VARIABLE: str(resources.nodes if parts == 1 else 1),
        JOIN_VARIABLE: str(cluster.join_seconds),
    }
    if parts > 1:
        made[PARTS_VARIABLE] = str(parts)
    elif job.distributed:
        made[RANKS_VARIABLE] = str(resources.gpus or math.ceil(job.spec.processes / resources.nodes))
        host = f"{job_name(name, cluster)}-0.{name}" if resources.nodes > 1 else "127.0.0.1"
        made |= {"MASTER_ADDR": host, "MASTER_PORT": str(PORT)}
    return made


def _pod_template(
    job: JobSpec, cluster: Cluster, name: str, where: str, suffix: str, *, parts: int
) -> Manifest:
    resources = job.resources
    placements = cluster.placements(resources)
    limits = {
        "cpu": f"{resources.cpus:g}",
        "memory": resources.memory,
        "ephemeral-storage": resources.scratch,
    }
    if resources.gpus:
        limits[cluster.gpu_resource] = str(resources.gpus)
    annotations: dict[str, str] = {}
    selector: dict[str, str] = {}
    tolerations: list[Manifest] = []
    capabilities: list[str] = []
    for placement in placements:
        annotations |= placement.annotations
        selector |= placement.node_selector
        tolerations += placement.tolerations
        limits |= placement.resources
        capabilities += placement.capabilities
    environment = _environment(job, cluster, name, where, suffix, parts)
    accounts = {
        "gpu": cluster.service_account,
        "downloader": cluster.downloader_service_account,
        "data": cluster.data_service_account,
    }
    mounts: list[Manifest] = [
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - a volume of the pod
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod
        {"name": "scratch", "mountPath": "/scratch"},
    ]
    volumes: list[Manifest] = [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": resources.shared_memory}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "2Gi"}},
        {"name": "scratch", "emptyDir": {"sizeLimit": resources.scratch}},
    ]
    for number, volume in enumerate(cluster.volumes):
        claim = {"claimName": volume.claim, "readOnly": volume.read_only}
        volumes.append({"name": f"claim-{number}", "persistentVolumeClaim": claim})
        mount = {"name": f"claim-{number}", "mountPath": volume.path, "readOnly": volume.read_only}
        mounts.append(mount)
    priority = resources.priority or cluster.priority
    security: Manifest = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], **({"add": capabilities} if capabilities else {})},
    }
    container: Manifest = {
        "name": CONTAINER,
        "image": cluster.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "pipelines.launch.worker"],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "resources": {"limits": limits, "requests": dict(limits)},
        "securityContext": security,
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if cluster.secrets:
        container["envFrom"] = [{"secretRef": {"name": secret}} for secret in cluster.secrets]
    spec: Manifest = {
        "restartPolicy": "Never",
        "subdomain": name,
        "serviceAccountName": accounts[role(job)],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": cluster.grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    if selector:
        spec["nodeSelector"] = selector
    if tolerations:
        spec["tolerations"] = tolerations
    if priority:
        spec["priorityClassName"] = priority
    if cluster.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in cluster.image_pull_secrets]
    return {"metadata": {"annotations": annotations}, "spec": spec}


def as_document(rendered: Rendered) -> str:
    """For a person: the objects as JSON."""
    parts = [rendered.job, *([rendered.service] if rendered.service else [])]
    return json.dumps(parts, indent=1)
