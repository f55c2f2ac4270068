"""What a cluster refuses: malformed objects, pods that PodSecurity `restricted` forbids, images without digest,
unknown accounts and priority classes, and what goes beyond a quota."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import jsonschema
import kubernetes_validate

from pipelines.launch.cluster import as_bytes
from tests.launch.apiserver.store import Store

Manifest = dict[str, Any]
VERSIONS = ("1.29", "1.31", "1.33", "1.37")
DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}  # fmt: skip
WITHOUT_SCHEMA = {"LocalQueue", "ClusterQueue", "ResourceFlavor", "Workload"}
LABEL = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
"""A name in RFC 1035."""
JOB_SET = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "suspend": {"type": "boolean"},
                "ttlSecondsAfterFinished": {"type": "integer", "minimum": 0},
                "managedBy": {"type": "string"},
                "network": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "enableDNSHostnames": {"type": "boolean"},
                        "publishNotReadyAddresses": {"type": "boolean"},
                        "subdomain": {"type": "string", "pattern": f"^{LABEL}$"},
                    },
                },
                "failurePolicy": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"maxRestarts": {"type": "integer"}, "rules": {"type": "array"}},
                },
                "replicatedJobs": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["name", "template"],
                        "properties": {
                            "name": {"type": "string", "pattern": f"^{LABEL}$"},
                            "replicas": {"type": "integer", "minimum": 0},
                            "template": {"type": "object", "required": ["spec"]},
                        },
                    },
                },
            },
        },
    },
}
"""What JobSet's own definition (v1alpha2) says of the fields that we set; fields that we do not set are no part of it."""


class Refused(Exception):
    """The object is not admitted: an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


def valid(body: Manifest) -> None:
    """Check the object against the published schemas of several versions, strictly: an unknown key is an error."""
    if body.get("kind") == "JobSet":
        _valid_job_set(body)
    elif body.get("kind") not in WITHOUT_SCHEMA:
        _valid(json.dumps(body, sort_keys=True))


def _valid_job_set(body: Manifest) -> None:
    """As its definition and its webhook see it; each Job in it as a Job, with the names that its pods will have."""
    try:
        jsonschema.validate(body, JOB_SET)
    except jsonschema.ValidationError as error:
        path = ".".join(map(str, error.path))
        raise Refused(422, f"JobSet: {path}: {error.message}"[:600]) from None
    for replicated in body["spec"]["replicatedJobs"]:
        template, replicas = replicated["template"], replicated.get("replicas", 1)
        name = f"{body['metadata']['name']}-{replicated['name']}-{replicas - 1}"
        pod = f"{name}-{template['spec'].get('completions', 1) - 1}-abcde"
        if not re.fullmatch(LABEL, pod):
            raise Refused(403, f"pod names generated for this JobSet will exceed 63 characters: {pod}")
        metadata = {**template.get("metadata", {}), "name": name}
        valid({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]})


@functools.lru_cache(2000)
def _valid(text: str) -> None:
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(json.loads(text), version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            # Some kinds are younger than the oldest version; the newest must know it.
            if version == VERSIONS[-1]:
                raise
        except jsonschema.ValidationError as error:
            path = ".".join(map(str, error.path))
            raise Refused(422, f"{version}: {path}: {error.message}"[:600]) from None


def check_names(body: Manifest) -> None:
    """A Job's name becomes the host names and labels of its pods."""
    name = body["metadata"]["name"]
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
        raise Refused(422, f"{body['kind']} {name!r} is invalid: metadata.name: must be a DNS label")
    for key, value in (body["metadata"].get("labels") or {}).items():
        if not re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value):
            raise Refused(422, f"metadata.labels: {key}: Invalid value: {value!r}")


def restricted(spec: Manifest) -> list[str]:
    """What the Pod Security Standard `restricted` finds wrong with a pod."""
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    for volume in spec.get("volumes") or []:
        found += [f"restricted volume types: {kind}" for kind in set(volume) - {"name"} - VOLUMES]
    pod = spec.get("securityContext") or {}
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        own = container.get("securityContext") or {}
        name = container["name"]

        def setting(key: str, own: Manifest = own) -> Any:
            return own.get(key, pod.get(key))

        capabilities = own.get("capabilities") or {}
        added = set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}
        checks = {
            "privileged": own.get("privileged") in (None, False),
            "allowPrivilegeEscalation != false": own.get("allowPrivilegeEscalation") is False,
            "unrestricted capabilities": capabilities.get("drop") == ["ALL"] and not added,
            "runAsNonRoot != true": setting("runAsNonRoot") is True,
            "runAsUser=0": setting("runAsUser") != 0,
            "seccompProfile": (setting("seccompProfile") or {}).get("type") in ("RuntimeDefault", "Localhost"),
            "hostPort": not any(port.get("hostPort") for port in container.get("ports") or []),
        }  # fmt: skip
        found += [f"{check} (container {name!r})" for check, passed in checks.items() if not passed]
    return found


def unhardened(spec: Manifest) -> list[str]:
    """What our own rules find wrong besides: images by digest, read-only root, limits, no token without need."""
    found = []
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        if not DIGEST.fullmatch(container["image"]):
            found.append(f"image {container['image']} has no digest")
        if not (container.get("securityContext") or {}).get("readOnlyRootFilesystem"):
            found.append(f"container {container['name']} can write to its root")
        if not {"cpu", "memory"} <= ((container.get("resources") or {}).get("limits") or {}).keys():
            found.append(f"container {container['name']} has no limits")
    return found


def admit_pod(store: Store, namespace: str, name: str, spec: Manifest, accounts: set[str]) -> None:
    """Raises `Refused` as the admission of a real cluster would."""

    def forbid(words: str) -> None:
        raise Refused(403, f'pods "{name}" is forbidden: {words}')

    account = spec.get("serviceAccountName", "default")
    if account not in accounts:
        forbid(
            f"error looking up service account {namespace}/{account}: serviceaccount {json.dumps(account)} not found"
        )
    if found := restricted(spec) + unhardened(spec):
        forbid(f'violates PodSecurity "restricted:latest": {", ".join(found)}')
    priority = spec.get("priorityClassName")
    if priority and store.find("priorityclasses", "", priority) is None:
        forbid(f"no PriorityClass with name {priority} was found")
    for limits in store.list("limitranges", namespace):
        _check_limits(limits, spec, forbid)
    for quota in store.list("resourcequotas", namespace):
        _check_quota(store, namespace, quota, spec, forbid)


def _check_limits(limits: Manifest, spec: Manifest, forbid: Any) -> None:
    for item in limits["spec"]["limits"]:
        for name, most in (item.get("max") or {}).items():
            for container in spec["containers"]:
                limit = container["resources"]["limits"].get(name, "0")
                if item["type"] == "Container" and as_bytes(limit) > as_bytes(most):
                    forbid(f"maximum {name} usage per Container is {most}, but limit is {limit}")


def _check_quota(store: Store, namespace: str, quota: Manifest, spec: Manifest, forbid: Any) -> None:
    asked = _requests(spec)
    pods = [pod for pod in store.list("pods", namespace) if pod["status"].get("phase") not in ("Succeeded", "Failed")]  # fmt: skip
    beyond = []
    for key, hard in quota["spec"]["hard"].items():
        name = key.removeprefix("requests.")
        used = sum(_requests(pod["spec"]).get(name, 0) for pod in pods)
        if name in asked and used + asked[name] > as_bytes(hard):
            beyond.append((key, asked[name], used, hard))
    if beyond:
        requested, used_words, limited = (
            ",".join(f"{item[0]}={item[column]:g}" if column < 3 else f"{item[0]}={item[3]}" for item in beyond)
            for column in (1, 2, 3)
        )  # fmt: skip
        forbid(
            f"exceeded quota: {quota['metadata']['name']}, requested: {requested}, used: {used_words}, limited: {limited}"
        )


def _requests(spec: Manifest) -> dict[str, float]:
    total: dict[str, float] = {}
    for container in spec["containers"]:
        for name, value in ((container.get("resources") or {}).get("requests") or {}).items():
            total[name] = total.get(name, 0) + as_bytes(value)
    return total
