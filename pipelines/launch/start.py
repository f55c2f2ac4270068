"""The Job for a piece of work: found where it runs already, or else created; never a second."""

from __future__ import annotations

import secrets
import time
from typing import Any

from pipelines.errors import BadInput
from pipelines.launch import naming
from pipelines.launch.api import Api
from pipelines.launch.attempt import Attempt, number_of
from pipelines.launch.cluster import Cluster
from pipelines.launch.jobset import as_job_set, job_name
from pipelines.launch.outcome import condition
from pipelines.launch.refusals import Exists, Gone
from pipelines.launch.render import Rendered, digest, render
from pipelines.launch.spec import JobSpec

Manifest = dict[str, Any]
CONTROLLER_LOOKS = 60
"""Seconds in which the controller of JobSet must have made a Job."""


def start_or_find(api: Api, cluster: Cluster, spec: JobSpec, parts: int = 1, least: int = 0) -> Attempt:
    """The job that runs for this work, or a new one, with a number from `least` on: never a second.

    Raises:
        BadInput: one runs that was described otherwise.
    """
    base = naming.base_name(spec)
    owner = _owner(api, spec)
    kind = "p" if parts > 1 else "a"
    jobs = [
        job
        for job in api.jobs({naming.JOB_LABEL: base})
        if job["metadata"]["labels"][naming.ATTEMPT_LABEL].startswith(kind)
    ]
    running = [job for job in jobs if not _finished(job)]
    if running:
        return _attach(api, cluster, spec, max(running, key=number_of), owner, parts)
    number = max(1 + max(map(number_of, jobs), default=-1), least)
    rendered = render(
        spec, cluster, number, token=secrets.token_hex(4), owner=owner, parts=parts
    )  # fmt: skip
    name = job_name(rendered.name, cluster)
    try:
        if cluster.backend == "jobset":
            api.create_job_set(as_job_set(rendered.job))
            return Attempt(api, cluster, spec, _made_by_controller(api, name), found=False, parts=parts)
        made = api.create_job(rendered.job)
    except Exists:
        # Another run was faster.
        return _attach(api, cluster, spec, api.job(name), owner, parts)
    _serve(api, rendered, made)
    return Attempt(api, cluster, spec, made, found=False, parts=parts)


def _attach(
    api: Api, cluster: Cluster, spec: JobSpec, job: Manifest, owner: Manifest | None, parts: int
) -> Attempt:
    name, annotations = job["metadata"]["name"], job["metadata"].get("annotations") or {}
    if annotations.get(naming.DIGEST_ANNOTATION) != digest(spec, cluster):
        raise BadInput(
            f"the job {name} makes this table already, with another image, other resources or another environment",
            where=f"namespace {cluster.namespace}",
            remedy=f"wait for it, or stop it and run again (it goes on from its checkpoint): kubectl -n {cluster.namespace} "
            f"delete job {name}",
        )
    if owner is not None:
        owners = [
            found for found in job["metadata"].get("ownerReferences") or [] if found["uid"] != owner["uid"]
        ]
        job = api.patch_job(name, {"metadata": {"ownerReferences": [*owners, owner]}})
    # The run that made it may have been killed before it came to this.
    _serve(api, render(spec, cluster, number_of(job), parts=parts), job)
    return Attempt(api, cluster, spec, job, found=True, parts=parts)


def _made_by_controller(api: Api, name: str) -> Manifest:
    """The Job of a JobSet, once its controller has made it.

    Raises:
        BadInput: it does not come.
    """
    for _ in range(CONTROLLER_LOOKS):
        try:
            return api.job(name)
        except Gone:
            time.sleep(1.0)
    raise BadInput(
        f"nothing makes the job {name} of its JobSet",
        where="the cluster's file: backend",
        remedy="install JobSet's controller, or set `backend: indexed_job`",
    )


def _serve(api: Api, rendered: Rendered, job: Manifest) -> None:
    if rendered.service is None or job["metadata"]["name"] != rendered.name:
        return
    reference = {
        "apiVersion": "batch/v1", "kind": "Job", "name": rendered.name, "uid": job["metadata"]["uid"],
    }  # fmt: skip
    service = rendered.service
    api.create_service({**service, "metadata": {**service["metadata"], "ownerReferences": [reference]}})


def _owner(api: Api, spec: JobSpec) -> Manifest | None:
    """The Job of the Dagster run, where the run is in this cluster: when it is deleted, so is the work."""
    if not spec.requested_by:
        return None
    try:
        job = api.job(f"dagster-run-{spec.requested_by}")
    except Gone:
        return None
    return {
        "apiVersion": "batch/v1", "kind": "Job",
        "name": job["metadata"]["name"], "uid": job["metadata"]["uid"],
    }  # fmt: skip


def _finished(job: Manifest) -> bool:
    return bool(
        condition(job, "Complete") or condition(job, "Failed") or job["metadata"].get("deletionTimestamp")
    )
