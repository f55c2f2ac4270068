"""What a stage is: a spec in, a published table out, and nothing run twice for equal inputs.

A stage package declares one `Stage` in its `__main__.py` (or module) and gets from here, the
same for all: the fingerprint, reuse of an equal table,
the lock against a second writer, a work folder that survives a kill, the balanced ledger,
and the atomic publish.

    <output>/_MANIFEST.json          the table exists when this does
    <output>/<fingerprint>/...       its files
    <output>/_work/<fingerprint>/    a run in progress; `out/` below it is what will be published

`output` may be an object store's (`s3://bucket/folder`): then the work folder is on this machine's
disk, finished files are uploaded, and the manifest follows them, by a conditional write.
"""

from __future__ import annotations

import datetime
import os
import shutil
import time
from typing import Any

from pipelines.declaration import (
    PART_COUNT_VARIABLE,
    Execution,
    InputFile,
    InputTable,
    Outcome,
    SpecT,
    Stage,
    StageSpec,
    lazy,
)
from pipelines.errors import BadInput, io_error_explained
from pipelines.fingerprint import fingerprint, input_versions, parameters, reusable, why_not_reusable
from pipelines.lake import cache, location, lock, manifest, publish
from pipelines.lake.manifest import Manifest
from pipelines.lake.work import UNPUBLISHED, Work
from pipelines.progress import Progress

__all__ = [
    "Execution",
    "InputFile",
    "InputTable",
    "Outcome",
    "Stage",
    "StageSpec",
    "Work",
    "execute",
    "fingerprint",
    "input_versions",
    "lazy",
    "reusable",
    "why_not_reusable",
]


def execute(stage: Stage[SpecT], spec: SpecT) -> Manifest:
    """Run the stage, or reuse its table; return the manifest.

    Under torchrun every rank calls this: rank 0 holds the lock and publishes, the others
    only run. A stage with ranks must end with a barrier, so that all files are there by then.

    Raises:
        BadInput: an input is missing or changed while the stage ran, the disk is full, or the lease was lost.
    """
    if int(os.environ.get("RANK", "0")) != 0:
        if made := reusable(stage, spec):
            # As rank 0 will find, too: it would not come to the barrier at which this rank would wait.
            return made
        stage.run(spec, _work(stage, spec, input_versions(spec)), Progress(stage.name, silent=True))
        return manifest.read(spec.output) if manifest.exists(spec.output) else _unpublished(stage)
    if PART_COUNT_VARIABLE in os.environ:
        return _execute_part(stage, spec)
    with lock.exclusive(spec.output) as check_lock:
        progress = Progress(stage.name)
        if made := reusable(stage, spec):
            progress.say(f"reused: nothing changed since {made.created}")
            publish.tidy(spec.output, made, stage.stable_names)
            return made
        replaces = manifest.tag(spec.output)
        inputs = input_versions(spec)
        work = _work(stage, spec, inputs)
        if not stage.resumable:
            shutil.rmtree(work.folder, ignore_errors=True)
        started = time.monotonic()
        try:
            work.out.mkdir(parents=True, exist_ok=True)
            outcome = stage.run(spec, work, progress)
            made = _described(stage, spec, inputs, outcome, time.monotonic() - started)
            check_lock()
            return publish.publish(
                spec.output, work, made, outcome.rows, stage.stable_names, replaces=replaces
            )
        except OSError as error:
            raise io_error_explained(error, work.folder) from error
        finally:
            progress.close()


def _execute_part(stage: Stage[SpecT], spec: SpecT) -> Manifest:
    """Do one part; publish nothing, and take no lock: the parts share the work folder."""
    if not (stage.divisible and stage.resumable):
        raise BadInput(
            f"the stage {stage.name!r} cannot be divided into parts",
            where=f"the environment variable {PART_COUNT_VARIABLE}",
            remedy="run it whole; in a recipe, leave out `parts` in its resources",
        )
    if made := reusable(stage, spec):
        return made
    work = _work(stage, spec, input_versions(spec))
    progress = Progress(stage.name)
    try:
        work.out.mkdir(parents=True, exist_ok=True)
        stage.run(spec, work, progress)
    except OSError as error:
        raise io_error_explained(error, work.folder) from error
    finally:
        progress.close()
    return _unpublished(stage)


def _unpublished(stage: Stage[Any]) -> Manifest:
    return Manifest(
        stage=stage.name, code_version=stage.code_version, fingerprint="", parameters={},
        inputs={}, files=[], created="", seconds=0.0,
    )  # fmt: skip


def _work(stage: Stage[SpecT], spec: SpecT, inputs: dict[str, str]) -> Work:
    name = fingerprint(stage, spec, inputs)
    remote = location.is_remote(spec.output)
    return Work(cache.scratch(spec.output) / UNPUBLISHED / name, spec.output / name if remote else None)


def _described(
    stage: Stage[SpecT], spec: SpecT, inputs: dict[str, str], outcome: Outcome, seconds: float
) -> Manifest:
    """The manifest of what was made, its files still to be named."""
    if outcome.ledger is not None and not outcome.ledger.balanced:
        raise AssertionError(f"{stage.name}: the ledger does not balance: {outcome.ledger}")
    now = input_versions(spec)
    if changed := [name for name in inputs if now.get(name) != inputs[name]]:
        raise BadInput(
            f"{stage.name}: an input changed while it was read: {', '.join(changed)}",
            where=spec.output,
            remedy="run the stage again, on the inputs as they are now; nothing was published",
        )
    return Manifest(
        stage=stage.name,
        code_version=stage.code_version,
        fingerprint=fingerprint(stage, spec, inputs),
        parameters=parameters(spec),
        inputs=inputs,
        files=[],
        ledger=outcome.ledger,
        metrics=outcome.metrics,
        incomplete=outcome.incomplete,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 2),
    )
