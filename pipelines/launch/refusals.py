"""What the API refuses, as errors that a person can act on or signs that the caller knows what to do with."""

from __future__ import annotations

import json
import re

from kubernetes.client.exceptions import ApiException

from pipelines.errors import BadInput


class Gone(Exception):
    """The object is not there."""


class Exists(Exception):
    """An object of this name is there already."""


class Unreachable(Exception):
    """The API has not answered for as long as a call is repeated."""


class Denied(BadInput):
    """The API does not let this account do this now: a right lacks, or its credentials are not known.

    No fault of the job: one that runs goes on.
    """


class NeverStarts(BadInput):
    """A job that the cluster will never start as it is described: nothing of it shall be left waiting."""


def is_denied(error: ApiException) -> bool:
    """Whether it is the account that is refused, and not the object that it brings."""
    return error.status == 401 or (error.status == 403 and not _is_beyond(_message(error)))


def explained(error: ApiException, action: str, *, server: str, found: str, namespace: str) -> Exception:
    """The error for what the API answered to `action` (a verb and a resource).

    `found`: where the way to the server was found; shown where the credentials are at fault.
    """
    words = _message(error)
    where = f"{server}, namespace {namespace}"
    if error.status == 401:
        return Denied(
            "the cluster does not know these credentials",
            where=f"{server} ({found})",
            remedy="log in again, or renew the token; `kubectl auth whoami` must answer",
        )
    if error.status == 403:
        return _forbidden(words, action, where)
    if error.status == 404 and re.search(r'namespaces? "[^"]*" not found', words):
        return BadInput(
            f"the namespace {namespace!r} does not exist in this cluster",
            where=where,
            remedy="create what the project needs there: make k8s-render OVERLAY=<overlay> | kubectl apply -f -; "
            "or mend `namespace` in the cluster's file",
        )
    if error.status == 404:
        return Gone(words)
    if error.status == 409 and "exceeded quota" not in words:
        return Exists(words)
    if error.status in (400, 422):
        return BadInput(
            f"the cluster refuses this object: {words}",
            where=where,
            remedy="mend the value named above in the recipe's `resources` or in the cluster's file",
        )
    return error


def _forbidden(words: str, action: str, where: str) -> BadInput:
    if _is_beyond(words):
        return BadInput(
            f"the cluster refuses this request: {words}",
            where=where,
            remedy="ask for less in the recipe's `resources`, or have the namespace's quota raised",
        )
    account = re.search(r'User "([^"]+)"', words)
    who = account[1] if account else "this account"
    if who == "system:anonymous":
        return Denied(
            f"the cluster does not know who asks ({who} may not {action})",
            where=where,
            remedy="give the kubeconfig's user its credentials (the login command of its `exec` must work here); "
            "`kubectl auth whoami` must answer",
        )
    verb, resource = action.split(" ", 1)
    return Denied(
        f"{who} may not {action}",
        where=where,
        remedy=f"grant it: apply {grants(resource)}; `kubectl auth can-i {verb} {resource}` must say yes",
    )


def grants(resource: str) -> str:
    """The manifest of ours that grants what a run does with this resource (`jobs`, `jobsets.jobset.x-k8s.io`)."""
    for group, overlay in (("kueue.x-k8s.io", "kueue"), ("jobset.x-k8s.io", "jobset")):
        if resource.endswith(group):
            return f"k8s/overlays/{overlay}/rbac.yaml"
    return "k8s/base/rbac.yaml"


def _is_beyond(words: str) -> bool:
    """Whether a request was forbidden for what it asks for."""
    return any(sign in words for sign in ("exceeded quota", "LimitRanger", "violates PodSecurity"))


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.body or error.reason)
