"""Names of a job's objects in a cluster: the same for the same work, so that it is never launched twice."""

from __future__ import annotations

import re

from pipelines.errors import BadInput
from pipelines.lake.identity import document_sha256
from pipelines.launch.spec import OBJECT_NAME_PATTERN, JobSpec

PREFIX = "vlm-"
MANAGED_BY = "vlm-factory"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
JOB_LABEL = "vlm/job"
ATTEMPT_LABEL = "vlm/attempt"
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
POD_JOB_LABEL = "batch.kubernetes.io/job-name"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
DIGEST_ANNOTATION = "vlm/spec-sha256"
ASSET_ANNOTATION = "vlm/asset"
CHANNEL_ANNOTATION = "vlm/channel"
ABANDONED_ANNOTATION = "vlm/abandoned-since"
"""When the janitor first saw that nobody follows a job, in nanoseconds since 1970."""
FOLLOWER_PREFIX = "follower.vlm/"
"""Before a run's id: the annotation in which a run that follows the job notes, now and then, the time."""
MAX_NAME = 63


def base_name(job: JobSpec) -> str:
    """`vlm-<asset>-<digest>`: equal for equal asset, partition, fingerprint and output."""
    digest = document_sha256(
        {"name": job.name, "fingerprint": job.fingerprint, "output": str(job.spec.output)}
    )[:10]
    slug = re.sub(r"[^a-z0-9]+", "-", job.name.lower()).strip("-")
    # Attempt, the job of a JobSet, index and the end that each pod gets must fit in too: a JobSet is refused otherwise.
    room = MAX_NAME - len(PREFIX) - len(digest) - 1 - len("-a999-main-0-9999-abcde")
    return f"{PREFIX}{slug[:room].strip('-') or 'job'}-{digest}"


def run_job(run_id: str) -> str:
    """The Job in which Dagster's `K8sRunLauncher` runs this run."""
    return f"dagster-run-{run_id}"


def label_value(text: str) -> str:
    """`text` as a label's value: at most 63 of letters, digits, `-`, `_`, `.`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:MAX_NAME].strip("-_.")


def object_name(value: str, what: str, where: str) -> str:
    """The value, if it can be an object's name.

    Raises:
        BadInput: it is too long, or has other characters.
    """
    if re.fullmatch(OBJECT_NAME_PATTERN, value):
        return value
    if len(value) > MAX_NAME:
        fault, remedy = (
            f"the name of the {what} has {len(value)} characters",
            f"use at most {MAX_NAME}: {value[:20]}…",
        )
    else:
        fault, remedy = (
            f"{value!r} cannot be the name of a {what}",
            "use lower-case letters, digits and hyphens, and begin and end with a letter or digit",
        )
    raise BadInput(fault, where=where, remedy=remedy)
