"""The cluster on which jobs run: where its API is, and what a pod there needs. One YAML file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipelines.documents import load_document, validated
from pipelines.errors import BadInput
from pipelines.launch.naming import object_name
from pipelines.launch.spec import QUANTITY_PATTERN, Resources

CLUSTER_VARIABLE = "CLUSTER_FILE"
"""Names the file that describes the cluster."""
DIGEST_PATTERN = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")

Role = Literal["gpu", "data", "downloader", "client"]
"""What a pod is, for network policies, accounts and secrets: works with GPUs; works without; reads the web; asks
servers of language models."""

Quantity = Annotated[str, StringConstraints(pattern=QUANTITY_PATTERN)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Capacity(_Section):
    """The largest node of a kind: a request beyond it would wait for ever."""

    cpus: float = Field(gt=0)
    memory: Quantity
    gpus: int = Field(0, ge=0)


class Placement(_Section):
    """Where pods of a kind go, and what they get besides."""

    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    resources: dict[str, str] = Field({}, description="more limits, such as vpc.amazonaws.com/efa")
    queue: str | None = Field(None, description="the LocalQueue of stages that name none")
    priority: str | None = Field(None, description="the PriorityClass of stages that name none")
    environment: dict[str, str] = {}
    annotations: dict[str, str] = {}
    capabilities: list[Literal["IPC_LOCK"]] = Field(
        [], description="InfiniBand pins memory; needs a namespace that admits it"
    )
    capacity: Capacity | None = None


class Volume(_Section):
    """A volume claim that all pods mount."""

    claim: str
    path: str = Field(pattern=r"^/[\w./-]+$")
    read_only: bool = False


class Prices(_Section):
    """Per hour, in `currency`; from your provider's list or contract."""

    gpu: float = Field(0.0, ge=0, description="one GPU with its share of the node")
    spot_gpu: float | None = Field(None, ge=0)
    cpu: float = Field(0.0, ge=0, description="one core, for nodes without GPUs")
    currency: str = "USD"


class Cluster(_Section):
    """Everything about the cluster that jobs are told."""

    namespace: str
    image: str = Field(description="the GPU image, by digest: registry/name@sha256:...")
    kubeconfig: Path | None = Field(None, description="without it: the pod's own account, or ~/.kube/config")
    context: str | None = None
    backend: Literal["indexed_job", "jobset"] = "indexed_job"
    service_account: str = "gpu-worker"
    data_service_account: str = Field("data-worker", description="of pods without GPUs")
    downloader_service_account: str = Field("downloader", description="of the stage that reads the web")
    image_pull_secrets: list[str] = []
    secrets: dict[Role, list[str]] = Field(
        {}, description="by role: secrets whose keys become environment variables of its pods"
    )
    environment: dict[str, str] = {}
    volumes: list[Volume] = []
    gpu_resource: str = "nvidia.com/gpu"
    gpu: Placement = Placement()
    cpu: Placement = Placement()
    group: Placement = Field(
        Placement(),
        description="besides, of pods with GPUs on several nodes: network cards, what NCCL is told",
    )
    spot: Placement = Placement()
    queue: str | None = Field(None, description="the LocalQueue where neither stage nor placement names one")
    priority: str | None = Field(
        None, description="the PriorityClass where neither stage nor placement names one"
    )
    prices: Prices = Prices()
    budget: float | None = Field(None, gt=0, description="what one run may cost, all its tables together")
    max_gpus: int | None = Field(None, ge=0, description="GPUs that one job may hold at the same time")

    restarts: int = Field(50, ge=0, description="restarts after disruptions")
    restarts_without_progress: int = Field(3, ge=0, description="of these, one after another without a step")
    poll_seconds: float = Field(5.0, gt=0)
    heartbeat_seconds: float = Field(30.0, gt=0)
    restart_seconds: float = Field(15.0, ge=0, description="pause before a restart; grows, with jitter")
    patience_seconds: float = Field(1800.0, gt=0, description="how long the API may be out of reach")
    start_patience_seconds: float = Field(
        300.0, ge=0, description="how long an image may fail to be pulled, or a secret be absent"
    )
    grace_seconds: int = Field(120, ge=1, description="time to save a checkpoint when a pod is asked to stop")
    join_seconds: int = Field(3600, ge=1, description="how long the first nodes wait for the last one")
    keep_seconds: int = Field(86_400, ge=0, description="how long a finished job can be looked at")

    def checked(self, where: str) -> Cluster:
        """The cluster, after its names and its image were found usable.

        Raises:
            BadInput: a name is no object name, or the image is not pinned by digest.
        """
        names: dict[str, list[str | None]] = {
            "namespace": [self.namespace],
            "service account": [
                self.service_account, self.data_service_account, self.downloader_service_account,
            ],
            "secret": [*(name for names in self.secrets.values() for name in names), *self.image_pull_secrets],
            "queue": [self.queue, *(placement.queue for placement in self._placements)],
            "priority class": [self.priority, *(placement.priority for placement in self._placements)],
        }  # fmt: skip
        for what, values in names.items():
            for value in filter(None, values):
                object_name(value, what, where)
        if not DIGEST_PATTERN.fullmatch(self.image):
            raise BadInput(
                f"the image {self.image!r} is not pinned by its digest",
                where=f"{where}: image",
                remedy="name it as registry/name@sha256:...; `docker buildx imagetools inspect IMAGE` shows the digest",
            )
        return self

    def placements(self, resources: Resources) -> list[Placement]:
        """What applies to a pod with these resources, the general first."""
        group = resources.gpus > 0 and resources.nodes > 1
        return [
            self.gpu if resources.gpus else self.cpu,
            *([self.group] if group else []),
            *([self.spot] if resources.spot else []),
        ]

    def queue_of(self, resources: Resources) -> str | None:
        """The LocalQueue in which such a job waits: the stage's own, else that of the most special placement."""
        named = [placement.queue for placement in reversed(self.placements(resources))]
        return next((queue for queue in [resources.queue, *named, self.queue] if queue), None)

    def priority_of(self, resources: Resources) -> str | None:
        """The PriorityClass of such a job's pods, found as its queue is."""
        named = [placement.priority for placement in reversed(self.placements(resources))]
        return next((name for name in [resources.priority, *named, self.priority] if name), None)

    @property
    def _placements(self) -> tuple[Placement, ...]:
        return self.gpu, self.cpu, self.group, self.spot

    def price_of_pod(self, resources: Resources) -> float:
        """Per hour."""
        if resources.gpus:
            spot = self.prices.spot_gpu if resources.spot else None
            return (self.prices.gpu if spot is None else spot) * resources.gpus
        return self.prices.cpu * resources.cpus

    def price(self, resources: Resources) -> float:
        """Per hour of all pods that work at once."""
        return self.price_of_pod(resources) * resources.pods_at_once

    def check_possible(self, resources: Resources, where: str) -> None:
        """Refuse what no node can hold. `where`: the place at which it is asked for.

        Raises:
            BadInput: names the resource, what is asked and what there is.
        """
        total = resources.pods_at_once * resources.gpus
        if self.max_gpus is not None and total > self.max_gpus:
            divided = resources.parts > 1
            raise BadInput(
                f"{resources.pods_at_once} {'parts' if divided else 'nodes'} with {resources.gpus} GPUs are {total}, "
                f"and a job may hold {self.max_gpus}",
                where=where,
                remedy=f"ask for fewer{', or set `parts_at_once`' if divided else ''}, or raise `max_gpus` in the "
                "cluster's file",
            )
        if as_bytes(resources.shared_memory) > as_bytes(resources.memory):
            raise BadInput(
                f"shared_memory {resources.shared_memory} is more than memory {resources.memory}, of which it is a part",
                where=where,
                remedy="raise memory, or lower shared_memory",
            )
        capacity = (self.gpu if resources.gpus else self.cpu).capacity
        if capacity is None:
            return
        for name, asked, there in (
            ("gpus", resources.gpus, capacity.gpus),
            ("cpus", resources.cpus, capacity.cpus),
            ("memory", as_bytes(resources.memory), as_bytes(capacity.memory)),
        ):
            if asked > there:
                raise BadInput(
                    f"{name}: {getattr(resources, name)} for each node, and the largest node has "
                    f"{getattr(capacity, name)}: this job would wait for ever",
                    where=where,
                    remedy="ask for less on each node (more nodes, if need be), or mend `capacity` in the cluster's file",
                )


_UNITS = {
    "": 1,
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
}
_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}


def as_bytes(quantity: str) -> float:
    """`8Gi` as a number."""
    match = re.fullmatch(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]*)", quantity)
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{quantity!r} is no quantity")
    return float(match[1]) * _UNITS[match[2]]


def read_cluster(path: Path | None = None) -> Cluster:
    """The cluster in the file, or in the file that the environment names.

    Raises:
        BadInput: no file is named, or it is missing or malformed.
    """
    named = path or (Path(os.environ[CLUSTER_VARIABLE]) if os.environ.get(CLUSTER_VARIABLE) else None)
    if named is None:
        raise BadInput(
            "work is to run on a cluster, and no file describes it",
            where=f"the environment variable {CLUSTER_VARIABLE}",
            remedy="let it name a file such as k8s/base/cluster.yaml, or set COMPUTE_MODE=local",
        )
    return validated(Cluster, load_document(named), where=named).checked(str(named))
