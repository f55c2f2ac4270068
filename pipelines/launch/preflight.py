"""What can be asked of the cluster before anything runs there: rights, queues, quota, image."""

from __future__ import annotations

import contextlib
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping

from pipelines.errors import BadInput
from pipelines.launch.api import Api
from pipelines.launch.cluster import Cluster, as_bytes
from pipelines.launch.jobset import as_job_set
from pipelines.launch.kueue import Kueue
from pipelines.launch.possible import refuse_impossible
from pipelines.launch.refusals import Exists, Gone, grants
from pipelines.launch.render import render
from pipelines.launch.spec import JobSpec, Resources

Right = tuple[str, str, str, str]
"""Verb, resource, API group, subresource."""
NEEDED_RIGHTS: tuple[Right, ...] = (
    *((verb, "jobs", "batch", "") for verb in ("create", "get", "list", "patch", "delete")),
    ("create", "services", "", ""),
    ("list", "pods", "", ""),
    ("get", "pods", "", "log"),
    ("list", "events", "", ""),
    ("list", "resourcequotas", "", ""),
)
JOBSET_RIGHTS: tuple[Right, ...] = tuple(
    (verb, "jobsets", "jobset.x-k8s.io", "") for verb in ("create", "get", "patch", "delete")
)
QUEUE_RIGHTS: tuple[Right, ...] = (
    ("get", "localqueues", "kueue.x-k8s.io", ""),
    ("list", "workloads", "kueue.x-k8s.io", ""),
)
REGISTRY_SECONDS = 10
UNSET = "sha256:" + "0" * 64
"""What the overlays are shipped with."""
DOCKER_HUB = "registry-1.docker.io"
"""Where the images of `docker.io` are; a page for people answers at the other name."""


def problems(cluster: Cluster, api: Api, wanted: Mapping[str, Resources]) -> Iterator[str]:
    """Everything that would stop a job, by table: all of it, not the first alone."""
    queues = {queue for resources in wanted.values() if (queue := cluster.queue_of(resources))}
    needed = NEEDED_RIGHTS
    needed += JOBSET_RIGHTS if cluster.backend == "jobset" else ()
    needed += QUEUE_RIGHTS if queues else ()
    lacking = {right for right in needed if not api.may(*right)}
    for verb, resource, group, subresource in (right for right in needed if right in lacking):
        whole = ".".join(filter(None, (resource, group if group != "batch" else "")))
        whole += f"/{subresource}" if subresource else ""
        yield f"this account may not {verb} {whole}: apply {grants(whole)}"
    for name, resources in wanted.items():
        try:
            cluster.check_possible(resources, f"recipe: resources, for {name}")
        except BadInput as error:
            yield str(error)
    for queue in sorted(queues) if lacking.isdisjoint(QUEUE_RIGHTS) else []:
        if not Kueue(api).queue_exists(queue):
            yield f"the queue {queue!r} does not exist in the namespace {cluster.namespace!r}"
    if ("list", "resourcequotas", "", "") not in lacking:
        yield from _beyond_quota(cluster, api, wanted)
    if missing := image_missing(cluster.image):
        yield missing


def refusals(cluster: Cluster, api: Api, jobs: Iterable[JobSpec]) -> Iterator[str]:
    """What would be refused of these jobs when they are launched: by this program, or by the API, which is shown one of
    each kind and makes none."""
    shown: set[Resources] = set()
    told: set[tuple[str, str]] = set()
    may_create = api.may("create", "jobsets", "jobset.x-k8s.io") if cluster.backend == "jobset" else api.may("create", "jobs", "batch")  # fmt: skip
    for job in jobs:
        try:
            refuse_impossible(job, cluster)
            made = render(job, cluster, 0).job
            if not may_create or job.resources in shown:
                continue
            shown.add(job.resources)
            with contextlib.suppress(Exists):
                if cluster.backend == "jobset":
                    api.create_job_set(as_job_set(made), dry_run=True)
                else:
                    api.create_job(made, dry_run=True)
        except Gone:
            # Of all that can be missing, the kind itself.
            yield "the cluster has no JobSets: install their controller, or set `backend: indexed_job` in the cluster's file"
        except BadInput as error:
            # Of a wrong workspace or namespace, one table is example enough.
            if (error.where, error.remedy) not in told:
                told.add((error.where, error.remedy))
                yield str(error)


def _beyond_quota(cluster: Cluster, api: Api, wanted: Mapping[str, Resources]) -> Iterator[str]:
    for quota in api.quotas():
        for key, hard in (quota.get("spec", {}).get("hard") or {}).items():
            name = key.removeprefix("requests.").removeprefix("limits.")
            for stage, resources in wanted.items():
                each = {
                    "cpu": resources.cpus,
                    "memory": as_bytes(resources.memory),
                    cluster.gpu_resource: float(resources.gpus),
                }
                pods = resources.pods_at_once
                asked = pods if name == "pods" else each.get(name, 0.0) * pods
                if asked > as_bytes(str(hard)):
                    yield (
                        f"{stage} asks for {asked:g} {name}, and the quota {quota['metadata']['name']!r} of the namespace "
                        f"is {hard}"
                    )


def image_missing(image: str) -> str:
    """What is wrong with an image in its registry; "" if it is there, or if that cannot be known from here."""
    match = re.fullmatch(r"(?P<host>[^/]+)/(?P<name>[^@]+)@(?P<digest>sha256:[0-9a-f]{64})", image)
    if match is None:
        return f"the image {image!r} has no registry and digest"
    if match["digest"] == UNSET:
        return f"the image {image} has no digest yet: push yours, and put its digest into `image` in the cluster's file"
    host, name = match["host"], match["name"]
    if not re.search(r"[.:]|^localhost$", host):
        # As every container runtime reads it: `me/image` is Docker Hub's.
        host, name = "docker.io", f"{host}/{name}"
    host = DOCKER_HUB if host in ("docker.io", "index.docker.io") else host
    scheme = "http" if host.partition(":")[0] in ("localhost", "127.0.0.1") else "https"
    url = f"{scheme}://{host}/v2/{name}/manifests/{match['digest']}"
    accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    request = urllib.request.Request(url, method="HEAD", headers={"Accept": accept})  # noqa: S310 - http(s) alone
    try:
        with urllib.request.urlopen(request, timeout=REGISTRY_SECONDS):  # noqa: S310 - as above
            return ""
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return f"the registry {host} has no image {image}: push it, or mend `image` in the cluster's file"
        return ""  # it wants a login, which the nodes have and this program has not
    except OSError:
        return ""
