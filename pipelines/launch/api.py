"""The cluster's API: the few calls that are made, repeated while the API is troubled, with errors a person can act on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from tenacity import Retrying, before_sleep_log, retry_if_exception, stop_after_delay, wait_random_exponential

from pipelines.errors import BadInput
from pipelines.launch import naming
from pipelines.launch.cluster import Cluster
from pipelines.launch.connection import connection
from pipelines.launch.jobset import set_of
from pipelines.launch.pod import CONTAINER, Manifest
from pipelines.launch.refusals import Exists, Gone, Unreachable, explained, is_denied

log = logging.getLogger(__name__)
T = TypeVar("T")

PASSING = frozenset({429, 500, 502, 503, 504})
"""Answers of an API server that is busy, restarting, or between two leaders."""
ABOUT_THE_OBJECT = frozenset({404, 409, 422})
"""Answers that only an account gets that may ask."""
FIRST_CALL_SECONDS = 20.0
"""How long the very first call is repeated: a wrong address should not look like an outage."""
REQUEST_SECONDS = (10.0, 60.0)
"""Time to connect, and to wait for an answer."""
MAX_PAUSE_SECONDS = 30.0

JOBSET = ("jobset.x-k8s.io", "v1alpha2")


class Troubled(Exception):
    """The API does not answer now, and the question is not worth waiting for."""


def _is_passing(error: BaseException, *, granted: bool = False) -> bool:
    """Whether it may be over soon. What was `granted` before and is denied now may be granted again: an authorizer that
    does not answer, a role that is being replaced."""
    if isinstance(error, ApiException):
        return error.status in PASSING or error.status == 0 or (granted and is_denied(error))
    return isinstance(error, urllib3.exceptions.HTTPError)


class Api:
    """The calls, in one namespace.

    Each is repeated while the API is troubled, for as long as the cluster's patience lasts; then it raises `Unreachable`, or `Denied`
    where the account was refused all the time.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.namespace = cluster.namespace
        self._patience = cluster.patience_seconds
        self._reached = False
        self._granted: set[str] = set()
        """What this account was let do before."""
        self.where, configuration = connection(cluster)
        self.server = configuration.host
        configuration.retries = False
        api_client = client.ApiClient(configuration)
        self._core = client.CoreV1Api(api_client)
        self._batch = client.BatchV1Api(api_client)
        self._custom = client.CustomObjectsApi(api_client)
        self._rights = client.AuthorizationV1Api(api_client)
        self._raw = api_client

    # Jobs

    def create_job(self, body: Manifest, *, dry_run: bool = False) -> Manifest:
        """Raises `Exists` if a job of this name is there. `dry_run`: the API says what it thinks of it, and makes nothing."""
        return self._call(
            "create jobs", self._batch.create_namespaced_job, self.namespace, body, **_dry(dry_run)
        )

    def jobs(self, labels: dict[str, str]) -> list[Manifest]:
        return self._items(
            "list jobs", self._batch.list_namespaced_job, self.namespace, label_selector=_selector(labels)
        )

    def job(self, name: str) -> Manifest:
        """Raises `Gone`."""
        return self._call("get jobs", self._batch.read_namespaced_job, name, self.namespace)

    def patch_job(self, name: str, patch: Manifest) -> Manifest:
        """Raises `Gone`."""
        return self._call("patch jobs", self._batch.patch_namespaced_job, name, self.namespace, patch)

    def delete_job(self, name: str) -> None:
        """Delete the job and, by the cluster's garbage collection, its pods and its Service."""
        try:
            # Without a policy the pods of a Job would be left behind.
            self._call(
                "delete jobs", self._batch.delete_namespaced_job, name, self.namespace,
                propagation_policy="Background",
            )  # fmt: skip
        except Gone:
            return

    def create_service(self, body: Manifest) -> None:
        try:
            self._call("create services", self._core.create_namespaced_service, self.namespace, body)
        except Exists:
            return

    # Pods

    def pods(self, job: str) -> list[Manifest]:
        return self._items(
            "list pods", self._core.list_namespaced_pod, self.namespace,
            label_selector=f"{naming.POD_JOB_LABEL}={job}",
        )  # fmt: skip

    def log(self, pod: str, lines: int) -> str:
        """The last lines of a pod's log; empty if it has none any more."""
        try:
            text: str = self._call(
                "get pods/log", self._core.read_namespaced_pod_log, pod, self.namespace,
                container=CONTAINER, tail_lines=lines,
            )  # fmt: skip
        except (Gone, BadInput, Unreachable):
            return ""
        return text if isinstance(text, str) else ""

    def events(self, uid: str) -> list[Manifest]:
        """What the cluster says about an object, the newest last. By uid: an earlier one had the same name."""
        found = self._items(
            "list events", self._core.list_namespaced_event, self.namespace,
            field_selector=f"involvedObject.uid={uid}",
        )  # fmt: skip
        return sorted(
            found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or "")
        )

    # Quota, rights

    def quotas(self) -> list[Manifest]:
        return self._items("list resourcequotas", self._core.list_namespaced_resource_quota, self.namespace)

    def may(self, verb: str, resource: str, group: str = "", subresource: str = "") -> bool:
        """Whether this account may do this in the namespace."""
        attributes = {
            "namespace": self.namespace, "verb": verb, "resource": resource,
            "group": group, "subresource": subresource,
        }  # fmt: skip
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self._call(
            "create selfsubjectaccessreviews", self._rights.create_self_subject_access_review, review
        )
        return bool(answer["status"]["allowed"])

    # JobSet

    def create_job_set(self, body: Manifest, *, dry_run: bool = False) -> Manifest:
        return self._call(
            "create jobsets.jobset.x-k8s.io", self._custom.create_namespaced_custom_object,
            *JOBSET, self.namespace, "jobsets", body, **_dry(dry_run),
        )  # fmt: skip

    def job_set(self, name: str) -> Manifest:
        """Raises `Gone`."""
        return self._call(
            "get jobsets.jobset.x-k8s.io", self._custom.get_namespaced_custom_object,
            *JOBSET, self.namespace, "jobsets", name,
        )  # fmt: skip

    def patch_job_set(self, name: str, patch: Manifest) -> Manifest:
        """Raises `Gone`."""
        return self._call(
            "patch jobsets.jobset.x-k8s.io", self._custom.patch_namespaced_custom_object,
            *JOBSET, self.namespace, "jobsets", name, patch,
        )  # fmt: skip

    def delete_job_set(self, name: str) -> None:
        try:
            self._call(
                "delete jobsets.jobset.x-k8s.io", self._custom.delete_namespaced_custom_object,
                *JOBSET, self.namespace, "jobsets", name, propagation_policy="Background",
            )  # fmt: skip
        except Gone:
            return

    def delete_work(self, job: Manifest) -> None:
        """Delete the Job; before it the JobSet, whose controller would make the Job anew."""
        if (name := set_of(job)) is not None:
            self.delete_job_set(name)
        self.delete_job(job["metadata"]["name"])

    def read(
        self, action: str, path: str, query: dict[str, str] | None = None, *, patient: bool = True
    ) -> Manifest:
        """What any path of the API answers, for kinds that the client has no calls for.

        Raises:
            Gone: there is no such object, or the API does not serve such a path.
            Troubled: not `patient`, and the API does not answer.
        """
        found: Manifest = self._call(
            action, self._raw.call_api, path, "GET", query_params=list((query or {}).items()),
            header_params={"Accept": "application/json"}, response_types_map={200: "object"},
            auth_settings=["BearerToken"], _return_http_data_only=True, patient=patient,
        )  # fmt: skip
        return found

    def _items(self, action: str, call: Callable[..., Any], *arguments: Any, **more: Any) -> list[Manifest]:
        return list(self._call(action, call, *arguments, **more).get("items") or [])

    def _call(
        self, action: str, call: Callable[..., Any], *arguments: Any, patient: bool = True, **more: Any
    ) -> Any:
        seconds = self._patience if self._reached else min(FIRST_CALL_SECONDS, self._patience)
        retrying = Retrying(
            retry=retry_if_exception(
                lambda error: patient and _is_passing(error, granted=action in self._granted)
            ),
            wait=wait_random_exponential(multiplier=0.5, max=MAX_PAUSE_SECONDS),
            stop=stop_after_delay(seconds),
            before_sleep=before_sleep_log(log, logging.WARNING),
            reraise=True,
        )
        try:
            found = retrying(call, *arguments, _request_timeout=REQUEST_SECONDS, **more)
        except ApiException as error:
            if error.status in ABOUT_THE_OBJECT:
                self._reached = True
                self._granted.add(action)
            if not patient and _is_passing(error):
                raise Troubled(f"{error.status} {error.reason}") from None
            if _is_passing(error):
                raise Unreachable(f"{action}: {error.status} {error.reason}") from None
            raise explained(
                error, action, server=self.server, found=self.where, namespace=self.namespace
            ) from None
        except urllib3.exceptions.HTTPError as error:
            if not patient:
                raise Troubled(str(error)) from None
            if self._reached:
                raise Unreachable(f"{action}: {_cause(error)}") from None
            raise BadInput(
                f"the cluster's API cannot be reached: {_cause(error)}",
                where=f"{self.server} ({self.where})",
                remedy="check the kubeconfig's `server` and your network: `kubectl cluster-info` must answer",
            ) from None
        self._reached = True
        self._granted.add(action)
        return found if isinstance(found, str | dict) else self._raw.sanitize_for_serialization(found)


def _dry(run: bool) -> dict[str, Any]:
    return {"dry_run": "All"} if run else {}


def _cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return str(reason if reason is not None else error)


def _selector(labels: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())
