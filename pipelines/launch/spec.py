"""What is launched: a stage's module, its spec document and what it needs. The same for a laptop and a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from pipelines.declaration import Reach, StageSpec

Report = dict[str, Any]
"""One record of a running job, by its `kind`: `progress` and `message` as `pipelines.progress` writes
them; `log`, lines of rank 0's log under `text`; `state`, how the job stands in the cluster, in words (`text`) and
`figures`; `usage`, at the end of a job in the cluster, what it took, in the same two ways."""

QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
OBJECT_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
"""Names in Kubernetes: lower-case letters, digits and hyphens, at most 63 (RFC 1123 label)."""


class Resources(BaseModel):
    """What a stage asks of a cluster. Work on one machine ignores it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: int = Field(1, ge=1, le=512, description="machines that work as one group")
    gpus: int = Field(0, ge=0, le=16, description="GPUs of each node")
    cpus: float = Field(2, gt=0, description="CPU cores of each node")
    memory: str = Field("8Gi", pattern=QUANTITY_PATTERN, description="memory of each node")
    scratch: str = Field("20Gi", pattern=QUANTITY_PATTERN, description="local disk of each node")
    shared_memory: str = Field(
        "2Gi",
        pattern=QUANTITY_PATTERN,
        description="memory that processes of a node share; a part of its memory",
    )
    priority: str | None = Field(None, pattern=OBJECT_NAME_PATTERN, description="a PriorityClass")
    queue: str | None = Field(None, pattern=OBJECT_NAME_PATTERN, description="a LocalQueue of Kueue")
    spot: bool = Field(False, description="may run on machines that can be taken away")
    parts: int = Field(
        1, ge=1, le=10_000, description="independent parts of a data stage that can be divided; each is a pod"
    )
    parts_at_once: int | None = Field(
        None, ge=1, description="parts that work at the same time; without it, all of them"
    )
    hours: float | None = Field(
        None,
        gt=0,
        description="expected hours of the whole stage, for the price; without it, what the stage took before",
    )
    deadline_hours: float = Field(
        336,
        gt=0,
        description="a job is ended after this time; what it waits for nodes counts, its turn in a queue does not; after a "
        "disruption it begins anew",
    )

    @property
    def pods_at_once(self) -> int:
        """Pods that hold a node at the same time."""
        return min(self.parts, self.parts_at_once or self.parts) if self.parts > 1 else self.nodes


@dataclass(frozen=True)
class JobSpec:
    """One job: `python -m module SPEC`, or torchrun of it when it is `distributed`."""

    name: str
    module: str
    spec: StageSpec
    distributed: bool = False
    """Whether its ranks form one group (training). `spec.processes` says how many there are without GPUs."""
    imports: tuple[str, ...] = ()
    """Packages of the job that take seconds to import: see `pipelines.launch.warm`."""
    resources: Resources = field(default_factory=Resources)
    reach: Reach = "store"
    """What its pods may reach besides the tables."""
    fingerprint: str = ""
    """Of the table that it makes. Jobs of equal name, fingerprint and output are the same job."""
    divisible: bool = False
    """Whether the stage can be done in parts."""
    requested_by: str = ""
    """Who waits for it: the id of a Dagster run."""
    stage: str = ""
    """The stage's name in the recipe's `resources`; the job's own name says more: which recipe, which crawl."""

    @property
    def asked(self) -> str:
        """Where the recipe says what it asks for."""
        return f"recipe: resources.{self.stage or self.name}"


@dataclass
class Usage:
    """What a job took."""

    attempts: int = 1
    queued_seconds: float = 0.0
    running_seconds: float = 0.0
    """Time in which all nodes were held, over all attempts."""
    gpu_hours: float = 0.0
    cost: float | None = None
    goodput: float | None = None
    """Steps that count, as a share of the steps that were done: the rest was lost to restarts."""
    job: str = ""
    """Its name in the cluster."""
    queue: str = ""
    """The queue in which it waited, where there is one."""
    first_place: int | None = None
    """Its place in that queue when it was first seen there; 1 is the next."""


class Launcher(Protocol):
    """Runs a job to its end. The result is the table's manifest; what is returned is what it took.

    Raises:
        BadInput: the job ended with the exit code of bad input, or cannot run as it is described.
        Interrupted: the job saved its state and stopped.
        StageFailed: any other end without success; holds the job's last words.
    """

    def run(self, job: JobSpec, on_report: Callable[[Report], None]) -> Usage: ...
