"""What a stage is: a spec in, a published table out, and nothing run twice for equal inputs.

A stage package declares one `Stage` in its `__main__.py` (or module) and gets from here, the
same for all: a command line, validation of its spec, the fingerprint, reuse of an equal table,
the lock against a second writer, a work folder that survives a kill, the balanced ledger,
and the atomic publish.

    <output>/_MANIFEST.json          the table exists when this does
    <output>/<fingerprint>/...       its files
    <output>/_work/<fingerprint>/    a run in progress; `out/` below it is what will be published
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, NoReturn, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.errors import (
    BAD_INPUT_EXIT_CODE,
    INTERRUPTED_EXIT_CODE,
    BadInput,
    Interrupted,
    disk_full_as_bad_input,
)
from pipelines.lake import lock, manifest
from pipelines.lake.identity import document_sha256, file_sha256
from pipelines.lake.ledger import Ledger
from pipelines.lake.manifest import Manifest, TableFile
from pipelines.progress import Progress

_TABLE, _FILE, _EXECUTION = "input table", "input file", "execution"

InputTable = Annotated[Path, _TABLE]
"""A spec field of this type is a table that the stage reads: its data version counts."""
InputFile = Annotated[Path, _FILE]
"""A spec field of this type is a file that the stage reads: its content counts."""
Execution = _EXECUTION
"""`Annotated[int, Execution]`: how the work is run (processes, ports); never changes the result."""


class StageSpec(BaseModel):
    """What a stage is told. Subclasses add inputs (`InputTable`, `InputFile`) and parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: Path
    """The folder of the table that the stage publishes."""
    processes: Annotated[int, Execution] = 1
    """Ranks of a distributed stage; started by torchrun."""


SpecT = TypeVar("SpecT", bound=StageSpec)

_MADE_BY_STAGES = re.compile(r"_work|[0-9a-f]{16}")


@dataclass(frozen=True)
class Outcome:
    """What a run leaves besides its files."""

    ledger: Ledger | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    """Plain JSON values that a person reads: counts, rates, scores."""
    rows: dict[str, int] = field(default_factory=dict)
    """Rows per file, by path below `out/`; other files have none."""


@dataclass(frozen=True)
class Work:
    """Where a run writes: `out` is published whole; the rest of `folder` is state for a resume."""

    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"


@dataclass(frozen=True)
class Stage(Generic[SpecT]):
    """A stage of the factory.

    `code_version` is raised by hand when a change of code changes the result: only then is
    finished work done again.
    """

    name: str
    module: str
    spec_type: type[SpecT]
    code_version: str
    run: Callable[[SpecT, Work, Progress], Outcome]
    summary: str
    resumable: bool = False
    """Whether `run` can go on from what an earlier, killed run left in the work folder."""
    stable_names: tuple[str, ...] = ()
    """Files that people open: also put directly under `output`, after the publish."""


def lazy(target: str) -> Callable[..., Outcome]:
    """The function `package.module:name`, imported when it is first called.

    A stage is declared beside its spec, which the web UI loads; what runs it imports torch.
    """
    module, name = target.split(":")

    def call(spec: Any, work: Work, progress: Progress) -> Outcome:
        outcome: Outcome = getattr(importlib.import_module(module), name)(spec, work, progress)
        return outcome

    return call


def _marked_fields(spec_type: type[StageSpec], mark: str) -> list[str]:
    def is_marked(annotation: Any, metadata: list[Any]) -> bool:
        if mark in metadata:
            return True
        return any(mark in getattr(part, "__metadata__", ()) for part in get_args(annotation))

    return [
        name
        for name, info in spec_type.model_fields.items()
        if is_marked(info.annotation, list(info.metadata))
    ]


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
    for name in _marked_fields(type(spec), _TABLE):
        for key, path in _paths(getattr(spec, name)).items():
            versions[name + key] = manifest.read(path).data_version
    for name in _marked_fields(type(spec), _FILE):
        for key, path in _paths(getattr(spec, name)).items():
            if not path.is_file():
                raise BadInput(f"the input {name!r} does not exist", where=path, remedy="check the path")
            versions[name + key] = file_sha256(path)[:16]
    return versions


def parameters(spec: StageSpec) -> dict[str, Any]:
    """The part of the spec that decides the result, besides the inputs."""
    left_out = {"output", *(_marked_fields(type(spec), _EXECUTION))}
    left_out.update(_marked_fields(type(spec), _TABLE))
    left_out.update(_marked_fields(type(spec), _FILE))
    return spec.model_dump(mode="json", exclude=left_out)


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
    """The manifest of a whole, unchanged table made by equal code from equal inputs, if there is one."""
    return why_not_reusable(stage, spec)[0]


def why_not_reusable(stage: Stage[SpecT], spec: SpecT) -> tuple[Manifest | None, str]:
    """The reusable manifest, or None and the reason in words."""
    if not manifest.exists(spec.output):
        return None, "it was never made"
    made = manifest.read(spec.output)
    inputs = input_versions(spec)
    if made.fingerprint == fingerprint(stage, spec, inputs):
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


def execute(stage: Stage[SpecT], spec: SpecT) -> Manifest:
    """Run the stage, or reuse its table; return the manifest.

    Under torchrun every rank calls this: rank 0 holds the lock and publishes, the others
    only run. A stage with ranks must end with a barrier, so that all files are there by then.
    """
    if int(os.environ.get("RANK", "0")) != 0:
        if made := reusable(stage, spec):
            # As rank 0 will find, too: it would not come to the barrier at which this rank would wait.
            return made
        work = Work(_work_folder(stage, spec))
        stage.run(spec, work, Progress(stage.name, silent=True))
        return manifest.read(spec.output) if manifest.exists(spec.output) else _unpublished(stage)
    with lock.exclusive(spec.output):
        progress = Progress(stage.name)
        if made := reusable(stage, spec):
            progress.say(f"reused: nothing changed since {made.created}")
            return made
        work = Work(_work_folder(stage, spec))
        if not stage.resumable:
            shutil.rmtree(work.folder, ignore_errors=True)
        work.out.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        try:
            outcome = stage.run(spec, work, progress)
            return _publish(stage, spec, work, outcome, time.monotonic() - started)
        except OSError as error:
            raise disk_full_as_bad_input(error, work.folder) from error
        finally:
            progress.close()


def _unpublished(stage: Stage[Any]) -> Manifest:
    return Manifest(
        stage=stage.name, code_version=stage.code_version, fingerprint="", parameters={},
        inputs={}, files=[], created="", seconds=0.0,
    )  # fmt: skip


def _work_folder(stage: Stage[SpecT], spec: SpecT) -> Path:
    return spec.output / "_work" / fingerprint(stage, spec, input_versions(spec))


def _publish(stage: Stage[SpecT], spec: SpecT, work: Work, outcome: Outcome, seconds: float) -> Manifest:
    if outcome.ledger is not None and not outcome.ledger.balanced:
        raise AssertionError(f"{stage.name}: the ledger does not balance: {outcome.ledger}")
    inputs = input_versions(spec)
    name = fingerprint(stage, spec, inputs)
    files = [
        TableFile(
            path=f"{name}/{path.relative_to(work.out).as_posix()}",
            sha256=file_sha256(path),
            bytes=path.stat().st_size,
            rows=outcome.rows.get(path.relative_to(work.out).as_posix()),
        )
        for path in sorted(work.out.rglob("*"))
        if path.is_file()
    ]
    made = Manifest(
        stage=stage.name,
        code_version=stage.code_version,
        fingerprint=name,
        parameters=parameters(spec),
        inputs=inputs,
        files=files,
        ledger=outcome.ledger,
        metrics=outcome.metrics,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 2),
    )
    final = spec.output / name
    if final.exists():
        # Left by a run that was killed between the move and the manifest, or damaged since.
        shutil.rmtree(final)
    work.out.replace(final)
    manifest.write(spec.output, made)
    for stable in stage.stable_names:
        manifest.write_atomically(spec.output / stable, (final / stable).read_bytes())
    for old in spec.output.iterdir():
        # Only what stages made: `output` may be a folder in which a person keeps other things.
        if old.is_dir() and old.name != name and _MADE_BY_STAGES.fullmatch(old.name):
            shutil.rmtree(old)
    return made


def load_spec(spec_type: type[SpecT], path: Path) -> SpecT:
    """Read and check a spec document (JSON or YAML).

    Raises:
        BadInput: the file is missing, is not such a document, or has a key that is wrong or unknown.
    """
    return validated(spec_type, load_document(path), where=path)


def load_document(path: Path) -> dict[str, Any]:
    """The mapping in a JSON or YAML file.

    Raises:
        BadInput: the file is missing, is not UTF-8 YAML, or holds no mapping.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput("the file does not exist", where=path, remedy="check the path") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(
            f"the file is not YAML in UTF-8: {error}", where=path, remedy="mend the line named above"
        ) from None
    if not isinstance(document, dict):
        raise BadInput(
            "the file holds no mapping of keys to values", where=path, remedy="write `key: value` lines"
        )
    return document


ModelT = TypeVar("ModelT", bound=BaseModel)


def validated(model: type[ModelT], document: dict[str, Any], *, where: Path) -> ModelT:
    """The document as `model`.

    Raises:
        BadInput: names each wrong or unknown key, and the keys that exist beside an unknown one.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            message = problem["msg"]
            if problem["type"] == "extra_forbidden":
                message = "unknown key"
            problems.append(f"{key}: {message}")
        raise BadInput(
            "this document is not valid:\n    " + "\n    ".join(problems),
            where=where,
            remedy=f"known keys at the top: {', '.join(model.model_fields)}",
        ) from None


def main(stage: Stage[SpecT]) -> None:
    """The command line of a stage: `python -m <module> SPEC`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {stage.module}", description=stage.summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="keys of the spec:\n" + _describe(stage.spec_type),
    )  # fmt: skip
    parser.add_argument("spec", type=Path, metavar="SPEC", help="the spec document, JSON or YAML")
    parser.add_argument("--schema", action=_PrintSchema, stage=stage, help="print the spec's JSON schema")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        made = execute(stage, load_spec(stage.spec_type, arguments.spec))
    except BadInput as error:
        _end_with(stage, BAD_INPUT_EXIT_CODE, f"error: {error}")
    except (Interrupted, KeyboardInterrupt):
        words = "stopped; run the same command to go on. Nothing half-made was published."
        _end_with(stage, INTERRUPTED_EXIT_CODE, f"{stage.name}: {words}")
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps({"data_version": made.data_version, "rows": made.rows, **made.metrics}))


def _end_with(stage: Stage[Any], code: int, words: str) -> NoReturn:
    """Exit with `code`, and leave it in the progress file too: torchrun exits with 1 whatever it was."""
    print(words, file=sys.stderr)
    Progress(stage.name).end(code, words)
    sys.exit(code)


class _PrintSchema(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str, *, stage: Stage[Any], help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)
        self.stage = stage

    def __call__(self, *_: Any) -> None:
        print(json.dumps(self.stage.spec_type.model_json_schema(), indent=1))
        sys.exit(0)


def _describe(spec_type: type[BaseModel]) -> str:
    lines = []
    for name, info in spec_type.model_fields.items():
        default = (
            "required" if info.is_required() else f"default {info.get_default(call_default_factory=True)!r}"
        )
        kind = getattr(info.annotation, "__name__", str(info.annotation))
        lines.append(f"  {name}: {kind} ({default})" + (f"  {info.description}" if info.description else ""))
    return "\n".join(lines)
