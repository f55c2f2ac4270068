"""A stage without a model, for tests: makes rows of text, or fails in the way that it is told to."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Literal

from pipelines.command_line import main
from pipelines.errors import BadInput, Interrupted
from pipelines.lake.ledger import Ledger
from pipelines.progress import Progress
from pipelines.stage import InputTable, Outcome, Stage, StageSpec, Work


class ToySpec(StageSpec):
    upstream: InputTable | None = None
    rows_in: int = 10
    kept: int = 8
    behaviour: Literal["make", "bad input", "die", "interrupted", "fail"] = "make"
    seconds: float = 0.0


def run(spec: ToySpec, work: Work, progress: Progress) -> Outcome:
    if spec.behaviour == "bad input":
        raise BadInput("column 'url' is missing", where=Path("list.parquet"), remedy="rename the column")
    if spec.behaviour == "interrupted":
        raise Interrupted
    if spec.behaviour == "fail":
        time.sleep(spec.seconds)
        raise RuntimeError("the machine is on fire")
    if spec.behaviour == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    progress.start("counting", spec.rows_in)
    for row in range(spec.rows_in):
        time.sleep(spec.seconds / spec.rows_in)
        progress.advance(1, loss=1.0 / (row + 1))
    # Another rank may come before its folder is there, or after it was published.
    if os.environ.get("RANK", "0") == "0":
        (work.out / "rows.txt").write_text("row\n" * spec.kept)
    dropped = spec.rows_in - spec.kept
    ledger = Ledger(
        rows_in=spec.rows_in, kept=spec.kept, dropped={"<img src=x>|odd": dropped} if dropped else {}
    )
    return Outcome(
        ledger=ledger, rows={"rows.txt": spec.kept}, metrics={"mean": 0.5, "by language": {"en": 1, "zh": 2}}
    )


STAGE = Stage(
    name="toy",
    module="tests.assets.toy_stage",
    spec_type=ToySpec,
    code_version="1",
    run=run,
    summary="A toy.",
)

if __name__ == "__main__":
    main(STAGE)
