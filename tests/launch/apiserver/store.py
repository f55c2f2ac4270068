"""The objects of the stand-in cluster: names, uids and versions, as the API server keeps them."""

from __future__ import annotations

import copy
import datetime
import threading
import uuid
from collections.abc import Callable
from typing import Any

Manifest = dict[str, Any]
Key = tuple[str, str, str]


class Missing(Exception):
    """No such object."""


class Taken(Exception):
    """There is an object of this name."""


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Store:
    """Objects by (resource, namespace, name). Everything that goes in or comes out is a copy."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._objects: dict[Key, Manifest] = {}
        self._version = 0

    def create(self, resource: str, namespace: str, body: Manifest) -> Manifest:
        with self.lock:
            made = copy.deepcopy(body)
            key = (resource, namespace, made["metadata"]["name"])
            if key in self._objects:
                raise Taken(key[2])
            made["metadata"] |= {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now()}
            made.setdefault("status", {})
            return self._put(key, made)

    def _put(self, key: Key, made: Manifest) -> Manifest:
        self._version += 1
        made["metadata"]["resourceVersion"] = str(self._version)
        self._objects[key] = made
        return copy.deepcopy(made)

    def get(self, resource: str, namespace: str, name: str) -> Manifest:
        with self.lock:
            try:
                return copy.deepcopy(self._objects[resource, namespace, name])
            except KeyError:
                raise Missing(name) from None

    def find(self, resource: str, namespace: str, name: str) -> Manifest | None:
        try:
            return self.get(resource, namespace, name)
        except Missing:
            return None

    def list(self, resource: str, namespace: str, labels: dict[str, str] | None = None) -> list[Manifest]:
        with self.lock:
            return [
                copy.deepcopy(found)
                for (kind, space, _), found in sorted(self._objects.items(), key=lambda item: item[0])
                if kind == resource
                and space == namespace
                and (labels or {}).items() <= (found["metadata"].get("labels") or {}).items()
            ]

    def update(
        self, resource: str, namespace: str, name: str, change: Callable[[Manifest], None]
    ) -> Manifest:
        with self.lock:
            key = (resource, namespace, name)
            if key not in self._objects:
                raise Missing(name)
            made = copy.deepcopy(self._objects[key])
            change(made)
            return self._put(key, made)

    def remove(self, resource: str, namespace: str, name: str) -> None:
        with self.lock:
            self._objects.pop((resource, namespace, name), None)

    def uids(self) -> set[str]:
        with self.lock:
            return {found["metadata"]["uid"] for found in self._objects.values()}

    def everything(self) -> list[tuple[Key, Manifest]]:
        with self.lock:
            return [(key, copy.deepcopy(found)) for key, found in self._objects.items()]


def merged(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386) applied."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result
