"""The same group of pods as a JobSet, whose controller makes the Job and the Service."""

from __future__ import annotations

from typing import Any

from pipelines.launch.cluster import Cluster

GROUP = "main"
"""Name of the one group of a JobSet."""

Manifest = dict[str, Any]


def job_name(name: str, cluster: Cluster) -> str:
    """The Job of an attempt: its own name, or the one that a JobSet's controller gives it."""
    return f"{name}-{GROUP}-0" if cluster.backend == "jobset" else name


def as_job_set(job: Manifest) -> Manifest:
    """A Job as the one group of a JobSet. Restarts stay with the client."""
    metadata, body = job["metadata"], job["spec"]
    child = {key: metadata[key] for key in ("labels", "annotations")}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "suspend": body["suspend"],
            "network": {
                "enableDNSHostnames": True,
                "publishNotReadyAddresses": True,
                "subdomain": metadata["name"],
            },
            "failurePolicy": {"maxRestarts": 0},
            "ttlSecondsAfterFinished": body["ttlSecondsAfterFinished"],
            "replicatedJobs": [
                {
                    "name": GROUP,
                    "replicas": 1,
                    "template": {
                        "metadata": child,
                        "spec": {
                            key: value for key, value in body.items() if key != "ttlSecondsAfterFinished"
                        },
                    },
                }
            ],
        },
    }


def set_of(job: Manifest) -> str | None:
    """The name of the JobSet whose controller made the Job, if one did."""
    owners = job["metadata"].get("ownerReferences") or []
    return next((str(owner["name"]) for owner in owners if owner["kind"] == "JobSet"), None)
