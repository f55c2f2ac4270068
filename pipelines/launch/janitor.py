"""Jobs that nobody waits for any more: found and deleted.

A run that is killed leaves its job running on purpose, so that the next run can find it. If none comes, GPUs
would be held for nothing; this is the backstop behind owner references and deadlines.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from pipelines.launch import naming
from pipelines.launch.api import Api
from pipelines.launch.attempt import seconds_of
from pipelines.launch.outcome import condition


@dataclass(frozen=True)
class Swept:
    """A job that was deleted, and why."""

    name: str
    asset: str
    why: str


def sweep(api: Api, *, patience_seconds: float, now: float | None = None) -> list[Swept]:
    """Delete every unfinished job of ours whose followers have been silent for longer than the patience."""
    now = time.time() if now is None else now
    swept = []
    for job in api.jobs({naming.MANAGED_BY_LABEL: naming.MANAGED_BY}):
        if condition(job, "Complete") or condition(job, "Failed") or job["metadata"].get("deletionTimestamp"):
            continue
        annotations = job["metadata"].get("annotations") or {}
        beats = [
            int(value) / 1e9 for key, value in annotations.items() if key.startswith(naming.FOLLOWER_PREFIX)
        ]
        last = max(beats, default=seconds_of(job["metadata"].get("creationTimestamp")) or now)
        if now - last > patience_seconds:
            name = job["metadata"]["name"]
            api.delete_job(name)
            why = f"no run has waited for it in {(now - last) / 60:.0f} minutes"
            swept.append(Swept(name, annotations.get(naming.ASSET_ANNOTATION, ""), why))
    return swept
