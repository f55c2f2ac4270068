"""What Kueue says of a job that waits: whether its queue exists, why it waits, and its place among those that do.

Kueue's objects are read in the newest version that the cluster serves. The place comes from Kueue's own API server for what
is pending (`visibility.kueue.x-k8s.io`); a cluster may run without it, and then a job waits just the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.errors import BadInput
from pipelines.launch.api import Api, Troubled
from pipelines.launch.refusals import Gone

GROUP, VISIBILITY = "kueue.x-k8s.io", "visibility.kueue.x-k8s.io"
VERSIONS = ("v1beta2", "v1beta1")
"""The newest first. Kueue 0.15 brought the first of them; later ones no longer serve the second."""
SAYING = ("Evicted", "QuotaReserved", "Admitted")
"""Conditions of a Workload that tell why it waits, the most telling first."""

PLACE = "place in the queue"

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A job's place in its queue; 1 is the next."""

    in_queue: int
    in_cluster_queue: int
    """Among all queues that share its quota."""


@dataclass(frozen=True)
class Turn:
    """How a queued job stands."""

    queue: str
    reason: str = ""
    place: Place | None = None

    def words(self) -> str:
        """`in a100, place 3 (5 of all that share its quota): insufficient unused quota ...`."""
        placed = ""
        if self.place is not None:
            placed = f", place {self.place.in_queue}"
            if self.place.in_cluster_queue != self.place.in_queue:
                placed += f" ({self.place.in_cluster_queue} of all queues that share its quota)"
        return f"in {self.queue}{placed}" + (f": {self.reason}" if self.reason else "")

    def figures(self) -> dict[str, float]:
        """The place as a curve."""
        return {} if self.place is None else {PLACE: self.place.in_queue}


class Kueue:
    """Reads Kueue's objects in one namespace."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._blind = ""
        """Why places cannot be seen, once that is known."""

    def queue_exists(self, name: str) -> bool:
        """Whether the namespace has this LocalQueue."""
        try:
            self._read("get localqueues.kueue.x-k8s.io", GROUP, f"localqueues/{name}")
        except Gone:
            return False
        return True

    def turn(self, job: Manifest, queue: str) -> Turn:
        """How the queued `job` stands in its queue."""
        workload = self._workload(job)
        if workload is None:
            return Turn(queue)
        conditions = {found["type"]: found for found in workload.get("status", {}).get("conditions") or []}
        said = [conditions[kind].get("message") for kind in SAYING if kind in conditions]
        reason = next((str(words) for words in said if words), "")
        place = self._place(queue, workload["metadata"]["name"])
        if self._blind:
            reason = f"{reason} ({self._blind})".strip()
        return Turn(queue, reason, place)

    def _workload(self, job: Manifest) -> Manifest | None:
        """Kueue's object for a job; a JobSet's belongs to the JobSet."""
        owners = job["metadata"].get("ownerReferences") or []
        uid = next((owner["uid"] for owner in owners if owner["kind"] == "JobSet"), job["metadata"]["uid"])
        query = {"labelSelector": f"kueue.x-k8s.io/job-uid={uid}"}
        try:
            found = self._read("list workloads.kueue.x-k8s.io", GROUP, "workloads", query)["items"]
        except Gone:
            return None
        return dict(found[0]) if found else None

    def _place(self, queue: str, workload: str) -> Place | None:
        if self._blind:
            return None
        try:
            action = "get localqueues/pendingworkloads.visibility.kueue.x-k8s.io"
            pending = self._read(action, VISIBILITY, f"localqueues/{queue}/pendingworkloads", patient=False)
        except (Gone, Troubled):
            # Not installed, or not there now: the next look may find it.
            return None
        except BadInput as error:
            self._blind = f"its place is not shown: {error.what}"
            return None
        for item in pending.get("items") or []:
            if item["metadata"]["name"] == workload:
                return Place(item["positionInLocalQueue"] + 1, item["positionInClusterQueue"] + 1)
        return None

    def _read(
        self, action: str, group: str, path: str, query: dict[str, str] | None = None, *, patient: bool = True
    ) -> Manifest:
        gone = Gone(path)
        for version in VERSIONS:
            try:
                whole = f"/apis/{group}/{version}/namespaces/{self._api.namespace}/{path}"
                return self._api.read(action, whole, query, patient=patient)
            except Gone as error:
                gone = error
        raise gone
