"""Jobs that nobody waits for any more: found, marked, and deleted when they are found so again.

A run that is killed leaves its job running on purpose, so that the next run can find it. If none comes, GPUs
would be held for nothing; this is the backstop behind owner references and deadlines. It deletes at the second look
alone: after a long outage of everything that follows jobs, the first look may come before the runs are back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from pipelines.launch import naming
from pipelines.launch.api import Api
from pipelines.launch.outcome import condition, seconds_of
from pipelines.launch.refusals import Gone


@dataclass(frozen=True)
class Swept:
    """A job that was found abandoned, and why."""

    name: str
    asset: str
    why: str
    deleted: bool
    """Whether it was deleted, or only marked: the next sweep deletes it, unless a run has come back to it."""


def sweep(api: Api, *, patience_seconds: float, notice_seconds: float) -> list[Swept]:
    """Mark every unfinished job of ours whose followers have been silent for longer than the patience; delete those
    that were marked for longer than the notice, and have not been followed since."""
    now = time.time()
    swept = []
    for job in api.jobs({naming.MANAGED_BY_LABEL: naming.MANAGED_BY}):
        if condition(job, "Complete") or condition(job, "Failed") or job["metadata"].get("deletionTimestamp"):
            continue
        annotations = job["metadata"].get("annotations") or {}
        beats = [
            int(value) / 1e9 for key, value in annotations.items() if key.startswith(naming.FOLLOWER_PREFIX)
        ]
        last = max(beats, default=seconds_of(job["metadata"].get("creationTimestamp")) or now)
        if now - last <= patience_seconds:
            continue
        name = job["metadata"]["name"]
        marked = int(annotations.get(naming.ABANDONED_ANNOTATION, 0)) / 1e9
        deleted = last < marked < now - notice_seconds
        try:
            if deleted:
                api.delete_work(job)
            elif marked <= last:
                api.patch_job(
                    name, {"metadata": {"annotations": {naming.ABANDONED_ANNOTATION: str(int(now * 1e9))}}}
                )
        except Gone:
            continue
        why = f"no run has waited for it in {(now - last) / 60:.0f} minutes"
        swept.append(Swept(name, annotations.get(naming.ASSET_ANNOTATION, ""), why, deleted))
    return swept
