"""When finished work is used again: the fingerprint of a run, and what changed when it is another."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from pipelines.declaration import EXECUTION_MARK, FILE_MARK, TABLE_MARK, SpecT, Stage, StageSpec
from pipelines.errors import BadInput
from pipelines.lake import cache, location, manifest
from pipelines.lake.identity import document_sha256, file_sha256, folder_sha256
from pipelines.lake.manifest import Manifest


def _marked_fields(spec_type: type[BaseModel], mark: str) -> list[str]:
    def is_marked(annotation: Any, metadata: list[Any]) -> bool:
        if mark in metadata:
            return True
        return any(mark in getattr(part, "__metadata__", ()) for part in get_args(annotation))

    return [
        name
        for name, info in spec_type.model_fields.items()
        if is_marked(info.annotation, list(info.metadata))
    ]


def execution_fields(spec_type: type[BaseModel]) -> list[str]:
    """The fields of a spec that say how the work is run, and never change its result."""
    return _marked_fields(spec_type, EXECUTION_MARK)


def _paths(value: Any) -> dict[str, Path]:
    """The paths in a field's value: one, a list, a mapping by name, or none."""
    if value is None:
        return {}
    if isinstance(value, Path):
        return {"": value}
    if isinstance(value, dict):
        return {f".{name}": path for name, path in value.items()}
    return {f".{index}": path for index, path in enumerate(value)}


def input_versions(spec: StageSpec) -> dict[str, str]:
    """The data version of every input, by field name.

    Raises:
        BadInput: an input does not exist.
    """
    versions: dict[str, str] = {}
    for name in _marked_fields(type(spec), TABLE_MARK):
        for key, path in _paths(getattr(spec, name)).items():
            versions[name + key] = manifest.read(path).data_version
    for name in _marked_fields(type(spec), FILE_MARK):
        for key, path in _paths(getattr(spec, name)).items():
            if path.is_dir():
                versions[name + key] = folder_sha256(path, only=spec.files_of(name))[:16]
                continue
            if not location.is_file(path):
                raise BadInput(f"the input {name!r} does not exist", where=path, remedy="check the path")
            versions[name + key] = file_sha256(cache.local(path))[:16]
    return versions


def parameters(spec: StageSpec) -> dict[str, Any]:
    """The part of the spec that decides the result, besides the inputs."""
    left_out: dict[str, Any] = {"output": True, **_executions(spec)}
    for mark in (TABLE_MARK, FILE_MARK):
        left_out.update(dict.fromkeys(_marked_fields(type(spec), mark), True))
    return spec.model_dump(mode="json", exclude=left_out)


def _executions(model: BaseModel) -> dict[Any, Any]:
    """What `exclude` takes to leave out how the work is run, at any depth of a spec's sections."""
    found: dict[Any, Any] = dict.fromkeys(_marked_fields(type(model), EXECUTION_MARK), True)
    for name in type(model).model_fields:
        value = getattr(model, name)
        if name in found:
            continue
        if isinstance(value, BaseModel):
            inner = _executions(value)
        elif isinstance(value, dict | list | tuple):
            places = value.items() if isinstance(value, dict) else enumerate(value)
            parts = {place: _executions(one) for place, one in places if isinstance(one, BaseModel)}
            inner = {place: part for place, part in parts.items() if part}
        else:
            continue
        if inner:
            found[name] = inner
    return found


def fingerprint(stage: Stage[SpecT], spec: SpecT, inputs: dict[str, str]) -> str:
    """Equal code version, parameters and inputs give an equal fingerprint, and so an equal table."""
    return document_sha256(
        {
            "stage": stage.name,
            "code_version": stage.code_version,
            "parameters": parameters(spec),
            "inputs": inputs,
        }
    )[:16]


def reusable(stage: Stage[SpecT], spec: SpecT) -> Manifest | None:
    """The manifest of a complete, unchanged table made by equal code from equal inputs, if there is one."""
    return why_not_reusable(stage, spec)[0]


def why_not_reusable(stage: Stage[SpecT], spec: SpecT) -> tuple[Manifest | None, str]:
    """The reusable manifest, or None and the reason in words."""
    if not manifest.exists(spec.output):
        return None, "it was never made"
    made = manifest.read(spec.output)
    inputs = input_versions(spec)
    if made.fingerprint == fingerprint(stage, spec, inputs):
        if made.incomplete:
            return None, f"what the last run left open is tried again: {made.incomplete}"
        found = manifest.faults(spec.output, made)
        return (None, "its files changed: " + found[0]) if found else (made, "")
    if made.code_version != stage.code_version:
        return None, f"the code changed from {made.code_version} to {stage.code_version}"
    changed = [name for name in inputs if made.inputs.get(name) != inputs[name]]
    if changed:
        return None, f"its inputs changed: {', '.join(changed)}"
    return None, f"its parameters changed: {', '.join(_differences(made.parameters, parameters(spec)))}"


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys whose values differ, with both values: `filter.threshold 0.18 -> 0.2`."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key} {old!r} -> {new!r}")
    return found
