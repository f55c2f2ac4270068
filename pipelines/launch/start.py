"""The Job for a piece of work: found where it runs already, or else created; never a second."""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import Any

from pipelines.errors import BadInput
from pipelines.launch import naming
from pipelines.launch.api import Api
from pipelines.launch.attempt import Attempt, number_of
from pipelines.launch.cluster import Cluster
from pipelines.launch.jobset import as_job_set, job_name, set_of
from pipelines.launch.outcome import condition
from pipelines.launch.refusals import Exists, Gone, NeverStarts, Unreachable
from pipelines.launch.render import Rendered, digest, render
from pipelines.launch.spec import JobSpec

Manifest = dict[str, Any]
CONTROLLER_LOOKS = 60
"""Seconds in which the controller of JobSet must have made a Job."""


def start_or_find(api: Api, cluster: Cluster, spec: JobSpec, parts: int = 1, least: int = 0) -> Attempt:
    """The job that runs for this work, or a new one, with a number from `least` on: never a second.

    Told to stop meanwhile, a run at a terminal leaves nothing behind that it made.

    Raises:
        BadInput: one runs that was described otherwise.
    """
    while True:
        # What another run was faster to make may be gone again before it is found: then it is this one's turn.
        with contextlib.suppress(Gone):
            return _start_or_find(api, cluster, spec, parts, least)


def _start_or_find(api: Api, cluster: Cluster, spec: JobSpec, parts: int, least: int) -> Attempt:
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
    try:
        made = _created(api, cluster, rendered)
        _serve(api, rendered, made)
    except Exists:
        # Another run was faster, or this one, whose answer was lost.
        return _attach(api, cluster, spec, _existing(api, cluster, rendered), owner, parts)
    except Exception:
        raise
    except BaseException:
        # In the cluster it is found by the run that comes after this one, or goes with the run's Job.
        if owner is None:
            _take_back(api, cluster, rendered)
        raise
    return Attempt(api, cluster, spec, made, found=False, parts=parts, in_cluster=owner is not None)


def _created(api: Api, cluster: Cluster, rendered: Rendered) -> Manifest:
    """The Job, made by the API or by JobSet's controller. Raises `Exists`."""
    if cluster.backend != "jobset":
        return api.create_job(rendered.job)
    made = api.create_job_set(as_job_set(rendered.job))
    return _made_by_controller(api, cluster, rendered, str(made["metadata"]["uid"]))


def _existing(api: Api, cluster: Cluster, rendered: Rendered) -> Manifest:
    """The Job of this name, which somebody else made. Raises `Gone`."""
    if cluster.backend != "jobset":
        return api.job(rendered.name)
    return _made_by_controller(api, cluster, rendered, str(api.job_set(rendered.name)["metadata"]["uid"]))


def _take_back(api: Api, cluster: Cluster, rendered: Rendered) -> None:
    """This process was told to stop while it made the Job: nobody follows that one yet."""
    with contextlib.suppress(Gone, BadInput, Unreachable):
        if cluster.backend == "jobset":
            made = api.job_set(rendered.name)
            if _channel(made) == _channel(rendered.job):
                api.delete_job_set(rendered.name)
        made = api.job(job_name(rendered.name, cluster))
        if _channel(made) == _channel(rendered.job):
            api.delete_work(made)


def _channel(made: Manifest) -> str:
    """Where its pods report: of each creation another place, by which its own is known from another run's."""
    return str((made["metadata"].get("annotations") or {}).get(naming.CHANNEL_ANNOTATION))


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
        if (made_by := set_of(job)) is None:
            job = api.patch_job(name, {"metadata": {"ownerReferences": [*owners, owner]}})
        else:
            # The JobSet goes with the runs that own it, and the Job with the JobSet.
            _own_job_set(api, made_by, owner)
    # The run that made it may have been killed before it came to this.
    _serve(api, render(spec, cluster, number_of(job), parts=parts), job)
    return Attempt(api, cluster, spec, job, found=True, parts=parts, in_cluster=owner is not None)


def _own_job_set(api: Api, name: str, owner: Manifest) -> None:
    owners = api.job_set(name)["metadata"].get("ownerReferences") or []
    others = [found for found in owners if found["uid"] != owner["uid"]]
    api.patch_job_set(name, {"metadata": {"ownerReferences": [*others, owner]}})


def _made_by_controller(api: Api, cluster: Cluster, rendered: Rendered, uid: str) -> Manifest:
    """The Job of the JobSet with this uid, once its controller has made it.

    Raises:
        NeverStarts: it does not come; the JobSet is deleted.
    """
    name = job_name(rendered.name, cluster)
    for _ in range(CONTROLLER_LOOKS):
        with contextlib.suppress(Gone):
            return api.job(name)
        time.sleep(1.0)
    said = [str(event.get("message")) for event in api.events(uid)]
    api.delete_job_set(rendered.name)
    raise NeverStarts(
        f"nothing makes the job {name} of its JobSet" + (f": {said[-1]}" if said else ""),
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
        job = api.job(naming.run_job(spec.requested_by))
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
