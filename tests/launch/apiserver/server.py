"""The API on loopback: the part of Kubernetes' HTTP interface that our clients and Dagster's call."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.launch.apiserver.admission import Refused, check_names, valid
from tests.launch.apiserver.controllers import Controllers
from tests.launch.apiserver.kubelet import Kubelet
from tests.launch.apiserver.rights import Rights
from tests.launch.apiserver.store import Missing, Store, Taken, merged, now

Manifest = dict[str, Any]
PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/(?P<version>[^/]+))/namespaces/(?P<namespace>[^/]+)/(?P<resource>[^/]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?"
)
ADMIN = "admin"
"""A person with all rights: what a kubeconfig on a laptop usually is."""


class Api(ThreadingHTTPServer):
    """The server; its attributes are what a test sets or looks at."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, store: Store, controllers: Controllers, kubelet: Kubelet, rights: Rights, namespace: str
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.store, self.controllers, self.kubelet, self.rights = store, controllers, kubelet, rights
        self.namespaces = {namespace}
        self.troubles: list[int] = []
        """Answers (429, 500, 503; 0 cuts the connection) that the next requests get, before they are looked at."""
        self.outage: int | None = None
        """The answer that every request gets while it is set."""
        self.late_troubles: list[int] = []
        """The same, after the request was carried out: its answer is lost."""
        self.unserved: set[str] = set()
        """Versions of APIs (`kueue.x-k8s.io/v1beta1`) that this server does not know."""
        self.requests: Counter[str] = Counter()
        self.recorded: list[tuple[str, Manifest]] = []
        """Every object that was created, with its kind."""
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed cut their connections: no news."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request: identity, rights, admission, then the store."""

    protocol_version = "HTTP/1.1"
    server: Api

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        self._serve("get")

    def do_POST(self) -> None:
        self._serve("create")

    def do_PATCH(self) -> None:
        self._serve("patch")

    def do_DELETE(self) -> None:
        self._serve("delete")

    def _serve(self, verb: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if self.server.outage is not None:
                return self._trouble(self.server.outage)
            if self.server.troubles and (status := self.server.troubles.pop(0)) != -1:
                return self._trouble(status)
            answer = self._answer(verb, json.loads(body) if body else {})
            if self.server.late_troubles:
                return self._trouble(self.server.late_troubles.pop(0))
            if isinstance(answer, str):
                self._send(200, answer.encode(), "text/plain")
            else:
                self._json(201 if verb == "create" else 200, answer)
        except Refused as refused:
            self._json(refused.status, _status(refused.status, refused.message))
        except Missing as missing:
            self._json(404, _status(404, f'"{missing}" not found'))
        except Taken as taken:
            self._json(409, _status(409, f'"{taken}" already exists', reason="AlreadyExists"))
        except (BrokenPipeError, ConnectionResetError):
            return None

    def _trouble(self, status: int) -> None:
        if status == 0:
            self.close_connection = True
            self.connection.close()
            return
        self._json(status, _status(status, "the server is troubled"))

    def _json(self, status: int, document: Manifest) -> None:
        self._send(status, json.dumps(document).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _account(self) -> str:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token == ADMIN or token in self.server.rights.accounts:
            return token
        raise Refused(401, "Unauthorized")

    def _answer(self, verb: str, body: Manifest) -> Manifest | str:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        account = self._account()
        if url.path.endswith("/selfsubjectaccessreviews"):
            valid(body)
            wanted = body["spec"]["resourceAttributes"]
            return {**body, "status": {"allowed": self._may(account, wanted)}}
        match = PATH.fullmatch(url.path)
        if match is None or f"{match['group']}/{match['version']}" in self.server.unserved:
            raise Refused(404, "404 page not found")
        group, namespace, resource = match["group"] or "", match["namespace"], match["resource"]
        if verb == "get" and match["name"] is None:
            verb = "watch" if query.get("watch") == "true" else "list"
        if verb == "delete" and match["name"] is None:
            verb = "deletecollection"
        full = f"{resource}/{match['sub']}" if match["sub"] else resource
        self.server.requests[f"{verb} {full}"] += 1
        if namespace not in self.server.namespaces and account == ADMIN:
            if verb == "create":
                raise Refused(404, f'namespaces "{namespace}" not found')
        elif account != ADMIN and not (
            namespace in self.server.namespaces and self.server.rights.allow(account, verb, group, full)
        ):
            user = f"system:serviceaccount:{namespace}:{account}"
            raise Refused(
                403,
                f'{full} is forbidden: User "{user}" cannot {verb} resource "{full}" in API group "{group}" '
                f'in the namespace "{namespace}"',
            )
        return self._done(verb, resource, namespace, match["name"], match["sub"], body, query)

    def _may(self, account: str, wanted: Manifest) -> bool:
        resource = wanted["resource"] + (f"/{wanted['subresource']}" if wanted.get("subresource") else "")
        right = (account, wanted["verb"], wanted.get("group", ""), resource)
        return account == ADMIN or right in self.server.rights.granted

    def _done(
        self, verb: str, resource: str, namespace: str, name: str | None, sub: str | None, body: Manifest, query: dict[str, str],
    ) -> Manifest | str:  # fmt: skip
        store = self.server.store
        if verb == "create":
            valid(body)
            check_names(body)
            if body["metadata"].get("namespace", namespace) != namespace:
                raise Refused(400, "the namespace of the object does not match the namespace of the request")
            if query.get("dryRun") == "All":
                if store.find(resource, namespace, body["metadata"]["name"]) is not None:
                    raise Taken(body["metadata"]["name"])
                return body
            made = store.create(resource, namespace, body)
            self.server.recorded.append((body["kind"], body))
            return made
        if verb == "list":
            return self._listed(resource, namespace, query)
        assert name is not None
        if verb == "patch":
            return self._patched(resource, namespace, name, body)
        if verb == "delete":
            return self._deleted(resource, namespace, name, body, query)
        if sub == "log":
            return self._log(namespace, name, query)
        if sub == "pendingworkloads":
            return self.server.controllers.pending(namespace, name)
        found = store.get(resource, namespace, name)
        return found

    def _listed(self, resource: str, namespace: str, query: dict[str, str]) -> Manifest:
        labels = dict(item.split("=", 1) for item in query.get("labelSelector", "").split(",") if item)
        found = self.server.store.list(resource, namespace, {key.rstrip("="): value.lstrip("=") for key, value in labels.items()})  # fmt: skip
        for item in query.get("fieldSelector", "").split(","):
            if item:
                path, value = item.split("=", 1)
                found = [entry for entry in found if _field(entry, path) == value.lstrip("=")]
        return {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": found}

    def _patched(self, resource: str, namespace: str, name: str, patch: Manifest) -> Manifest:
        kind = self.headers.get("Content-Type") or ""
        if kind not in ("application/merge-patch+json", "application/strategic-merge-patch+json"):
            raise Refused(415, f"unsupported: {kind}")

        def change(found: Manifest) -> None:
            patched = merged(found, patch)
            if "strategic" in kind and (owners := (patch.get("metadata") or {}).get("ownerReferences")):
                # Merged by uid.
                before = {owner["uid"]: owner for owner in found["metadata"].get("ownerReferences") or []}
                before |= {owner["uid"]: owner for owner in owners}
                patched["metadata"]["ownerReferences"] = list(before.values())
            found.clear()
            found.update(patched)

        return self.server.store.update(resource, namespace, name, change)

    def _deleted(
        self, resource: str, namespace: str, name: str, body: Manifest, query: dict[str, str]
    ) -> Manifest:
        found = self.server.store.get(resource, namespace, name)
        policy = query.get("propagationPolicy") or body.get("propagationPolicy")
        if policy is None and resource == "jobs":
            # The old default of batch/v1: what belongs to the job is left behind.
            uid = found["metadata"]["uid"]
            for (kind, space, other), entry in self.server.store.everything():
                owners = entry["metadata"].get("ownerReferences") or []
                if space == namespace and any(owner["uid"] == uid for owner in owners):
                    left = [owner for owner in owners if owner["uid"] != uid]
                    self.server.store.update(kind, space, other, lambda e, left=left: e["metadata"].update(ownerReferences=left))  # fmt: skip
        grace = query.get("gracePeriodSeconds")
        self.server.controllers.delete(resource, namespace, name, None if grace is None else float(grace))
        return {"kind": "Status", "apiVersion": "v1", "status": "Success", "metadata": {}, "deleted": now()}

    def _log(self, namespace: str, name: str, query: dict[str, str]) -> str:
        pod = self.server.store.get("pods", namespace, name)
        path = self.server.kubelet.log_path(pod["metadata"]["uid"])
        if not path.is_file():
            raise Refused(400, f'container "main" in pod "{name}" is waiting to start: ContainerCreating')
        lines = path.read_text(errors="replace").splitlines(keepends=True)
        if "tailLines" in query:
            lines = lines[-int(query["tailLines"]) :]
        return "".join(lines)


def _field(found: Manifest, path: str) -> Any:
    value: Any = found
    for part in path.split("."):
        value = (value or {}).get(part)
    return value


def _status(code: int, message: str, reason: str = "") -> Manifest:
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    }  # fmt: skip
