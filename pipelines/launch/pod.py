"""The pods of a job: what runs in them, with what they may use, where, and as whom."""

from __future__ import annotations

import math
from typing import Any

from pipelines.errors import BadInput
from pipelines.launch.cluster import Cluster, Placement, Role
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
from pipelines.launch.jobset import job_name
from pipelines.launch.spec import JobSpec, Resources

CONTAINER = "main"
PORT = 29500
USER = 1000
Manifest = dict[str, Any]


def role(job: JobSpec) -> Role:
    """What the pods are, for accounts, network policies and secrets. What they reach goes before what they have."""
    if job.reach == "servers":
        return "client"
    if job.reach == "web":
        return "downloader"
    return "gpu" if job.resources.gpus else "data"


def pod_template(
    job: JobSpec, cluster: Cluster, name: str, where: str, suffix: str, *, parts: int
) -> Manifest:
    """The template of the pods of the Job `name`, which report to the channel `where`.

    Raises:
        BadInput: the spec document is too large for a pod's environment.
    """
    placements = cluster.placements(job.resources)
    volumes, mounts = _volumes(job.resources, cluster)
    secrets = cluster.secrets.get(role(job), [])
    spec: Manifest = {
        "restartPolicy": "Never",
        "subdomain": name,
        "serviceAccountName": _account(job, cluster),
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
        "containers": [
            {
                "name": CONTAINER,
                "image": cluster.image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["python", "-m", "pipelines.launch.worker"],
                "env": [
                    {"name": key, "value": value}
                    for key, value in _environment(job, cluster, name, where, suffix, parts).items()
                ],
                "resources": _resources(job.resources, cluster),
                "securityContext": _security(placements),
                "volumeMounts": mounts,
                "terminationMessagePolicy": "FallbackToLogsOnError",
                **({"envFrom": [{"secretRef": {"name": secret}} for secret in secrets]} if secrets else {}),
            }
        ],
        "volumes": volumes,
        **_placed(job.resources, cluster, placements),
    }
    annotations = {key: value for placement in placements for key, value in placement.annotations.items()}
    return {"metadata": {"annotations": annotations}, "spec": spec}


def _account(job: JobSpec, cluster: Cluster) -> str:
    accounts: dict[Role, str] = {
        "gpu": cluster.service_account,
        "downloader": cluster.downloader_service_account,
        "data": cluster.data_service_account,
        "client": cluster.data_service_account,
    }
    return accounts[role(job)]


def _resources(resources: Resources, cluster: Cluster) -> Manifest:
    limits = {
        "cpu": f"{resources.cpus:g}",
        "memory": resources.memory,
        "ephemeral-storage": resources.scratch,
    }
    if resources.gpus:
        limits[cluster.gpu_resource] = str(resources.gpus)
    for placement in cluster.placements(resources):
        limits |= placement.resources
    return {"limits": limits, "requests": dict(limits)}


def _security(placements: list[Placement]) -> Manifest:
    added = [capability for placement in placements for capability in placement.capabilities]
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], **({"add": added} if added else {})},
    }


def _volumes(resources: Resources, cluster: Cluster) -> tuple[list[Manifest], list[Manifest]]:
    """The volumes of a pod, and where its container sees them."""
    volumes: list[Manifest] = [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": resources.shared_memory}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "2Gi"}},
        {"name": "scratch", "emptyDir": {"sizeLimit": resources.scratch}},
    ]
    mounts: list[Manifest] = [
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - a volume of the pod
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod
        {"name": "scratch", "mountPath": "/scratch"},
    ]
    for number, volume in enumerate(cluster.volumes):
        claim = {"claimName": volume.claim, "readOnly": volume.read_only}
        volumes.append({"name": f"claim-{number}", "persistentVolumeClaim": claim})
        mount = {"name": f"claim-{number}", "mountPath": volume.path, "readOnly": volume.read_only}
        mounts.append(mount)
    return volumes, mounts


def _placed(resources: Resources, cluster: Cluster, placements: list[Placement]) -> Manifest:
    """Which nodes, with which priority, and with which secrets images are pulled; no empty keys."""
    found: Manifest = {
        "nodeSelector": {
            key: value for placement in placements for key, value in placement.node_selector.items()
        },
        "tolerations": [toleration for placement in placements for toleration in placement.tolerations],
        "priorityClassName": cluster.priority_of(resources),
        "imagePullSecrets": [{"name": secret} for secret in cluster.image_pull_secrets],
    }
    return {key: value for key, value in found.items() if value}


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
