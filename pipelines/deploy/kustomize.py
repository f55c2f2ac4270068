"""The part of kustomize that `k8s/` uses, so that its overlays can be rendered, checked and tested anywhere.

A kustomization here has `resources`, `namespace`, `configMapGenerator` (without name suffixes), `images` by digest, and
`patches` of JSON operations (RFC 6902) on one target. Everything else is refused, never passed over: what this renders,
`kubectl apply -k` applies.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from pipelines.documents import load_document, validated
from pipelines.errors import BadInput

Manifest = dict[str, Any]
FILE_NAME = "kustomization.yaml"
WITHOUT_NAMESPACE = frozenset(
    {
        "Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding", "StorageClass", "PersistentVolume",
        "CustomResourceDefinition", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
        "ClusterQueue", "ResourceFlavor",
    }
)  # fmt: skip


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Options(_Part):
    disableNameSuffixHash: Literal[True]  # noqa: N815 - the key's name


class _ConfigMap(_Part):
    name: str
    namespace: str | None = None
    behavior: Literal["create", "replace", "merge"] = "create"
    files: list[str] = []
    literals: list[str] = []


class _Image(_Part):
    name: str
    newName: str | None = None  # noqa: N815 - the key's name
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")


class _Target(_Part):
    kind: str
    name: str


class _Patch(_Part):
    target: _Target
    patch: str


class _Operation(_Part):
    op: Literal["add", "replace", "remove"]
    path: str = Field(pattern="^/")
    value: Any = None


class Kustomization(_Part):
    """The keys that are understood."""

    apiVersion: Literal["kustomize.config.k8s.io/v1beta1"]  # noqa: N815 - the key's name
    kind: Literal["Kustomization"]
    namespace: str | None = None
    resources: list[str] = []
    generatorOptions: _Options | None = None  # noqa: N815 - the key's name
    configMapGenerator: list[_ConfigMap] = []  # noqa: N815 - the key's name
    images: list[_Image] = []
    patches: list[_Patch] = []


def render(folder: Path) -> list[Manifest]:
    """All objects of the kustomization in `folder`.

    Raises:
        BadInput: something is missing, is there twice, or is not understood; the message names the file.
    """
    path = folder / FILE_NAME
    wanted = validated(Kustomization, load_document(path), where=path)
    found: list[Manifest] = []
    for name in wanted.resources:
        place = folder / name
        found += render(place) if place.is_dir() else documents(place)
    for generator in wanted.configMapGenerator:
        if wanted.generatorOptions is None:
            raise BadInput(
                "config maps would get names with a suffix",
                where=path,
                remedy="set `generatorOptions: {disableNameSuffixHash: true}`",
            )
        _generate(found, generator, folder, path)
    for patch in wanted.patches:
        _patch(found, patch, path)
    if wanted.namespace is not None:
        _set_namespace(found, wanted.namespace)
    for image in wanted.images:
        _set_image(found, image, path)
    identities = [_identity(item) for item in found]
    if twice := {identity for identity in identities if identities.count(identity) > 1}:
        raise BadInput(f"there twice: {sorted(twice)}", where=path, remedy="take one of them out")
    return found


def documents(path: Path) -> list[Manifest]:
    """The objects in a file of YAML documents.

    Raises:
        BadInput: the file is missing, or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return [document for document in yaml.safe_load_all(text) if document is not None]
    except FileNotFoundError:
        raise BadInput(
            "this resource does not exist", where=path, remedy="mend `resources` in the kustomization"
        ) from None
    except yaml.YAMLError as error:
        raise BadInput(
            f"the file is not YAML: {error}", where=path, remedy="mend the line named above"
        ) from None


def _identity(item: Manifest) -> tuple[str, str, str]:
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _generate(found: list[Manifest], generator: _ConfigMap, folder: Path, where: Path) -> None:
    data = {Path(name).name: (folder / name).read_text(encoding="utf-8") for name in generator.files}
    data |= dict(literal.split("=", 1) for literal in generator.literals)
    metadata = {"name": generator.name}
    if generator.namespace:
        metadata["namespace"] = generator.namespace
    made: Manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    before = [item for item in found if _identity(item) == _identity(made)]
    if generator.behavior == "create":
        found.append(made)
        return
    if not before:
        raise BadInput(
            f"there is no config map {generator.name!r} to {generator.behavior}",
            where=where,
            remedy="mend its name or namespace",
        )
    before[0]["data"] = data if generator.behavior == "replace" else {**before[0]["data"], **data}


def _set_namespace(found: list[Manifest], namespace: str) -> None:
    accounts = {item["metadata"]["name"] for item in found if item["kind"] == "ServiceAccount"}
    for item in found:
        if item["kind"] == "Namespace":
            item["metadata"]["name"] = namespace
        elif item["kind"] not in WITHOUT_NAMESPACE:
            item["metadata"]["namespace"] = namespace
        for subject in item.get("subjects") or []:
            if subject["kind"] == "ServiceAccount" and subject["name"] in accounts:
                subject["namespace"] = namespace


def pod_specs(item: Manifest) -> list[Manifest]:
    """The pod specs in an object of one of the kinds that have one."""
    spec = item.get("spec") or {}
    if item["kind"] == "Pod":
        return [spec]
    if item["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return [spec["template"]["spec"]] if "template" in spec else []


def _set_image(found: list[Manifest], image: _Image, where: Path) -> None:
    used = False
    for item in found:
        for spec in pod_specs(item):
            for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
                if container["image"].partition("@")[0] == image.name:
                    container["image"] = f"{image.newName or image.name}@{image.digest}"
                    used = True
    if not used:
        raise BadInput(
            f"no container has the image {image.name!r}", where=where, remedy="mend its name, or take it out"
        )


def _patch(found: list[Manifest], patch: _Patch, where: Path) -> None:
    targets = [
        item
        for item in found
        if item["kind"] == patch.target.kind and item["metadata"]["name"] == patch.target.name
    ]
    if not targets:
        raise BadInput(
            f"a patch has no target: {patch.target.kind} {patch.target.name}",
            where=where,
            remedy="mend its name",
        )
    for raw in yaml.safe_load(patch.patch):
        operation = validated(_Operation, raw, where=where)
        for target in targets:
            _operate(target, operation, where)


def _operate(target: Manifest, operation: _Operation, where: Path) -> None:
    *parents, last = [
        part.replace("~1", "/").replace("~0", "~") for part in operation.path.removeprefix("/").split("/")
    ]
    place: Any = target
    try:
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        key: Any = last
        if isinstance(place, list):
            key = len(place) if last == "-" else int(last)
        if operation.op == "remove":
            del place[key]
        elif operation.op == "add" and isinstance(place, list):
            place.insert(key, copy.deepcopy(operation.value))
        else:
            if operation.op == "replace":
                place[key]
            place[key] = copy.deepcopy(operation.value)
    except (KeyError, IndexError, ValueError, TypeError):
        raise BadInput(
            f"a patch names a place that is not there: {operation.path}",
            where=where,
            remedy="mend its path; `add` needs the parent, `replace` and `remove` the place itself",
        ) from None
