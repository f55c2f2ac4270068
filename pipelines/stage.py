"""What a stage is: a spec in, a published table out, and nothing run twice for equal inputs.

A stage package declares one `Stage` in its `__main__.py` (or module) and gets from here, the
same for all: the fingerprint, reuse of an equal table,
the lock against a second writer, a work folder that survives a kill, the balanced ledger,
and the atomic publish.

    <output>/_MANIFEST.json          the table exists when this does
    <output>/<fingerprint>/...       its files
    <output>/_work/<fingerprint>/    a run in progress; `out/` below it is what will be published
"""

from __future__ import annotations

import datetime
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from pipelines.declaration import (
    Execution,
    InputFile,
    InputTable,
    Outcome,
    SpecT,
    Stage,
    StageSpec,
    Work,
    lazy,
)
from pipelines.errors import disk_full_as_bad_input
from pipelines.fingerprint import fingerprint, input_versions, parameters, reusable, why_not_reusable
from pipelines.lake import lock, manifest
from pipelines.lake.identity import file_sha256
from pipelines.lake.manifest import Manifest, TableFile
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

_MADE_BY_STAGES = re.compile(r"_work|[0-9a-f]{16}")


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
