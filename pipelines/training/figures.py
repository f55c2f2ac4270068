"""What a person follows of a training: per step in a file that survives a kill, live in the progress, in TensorBoard.

losses.jsonl       one line per step, in the work folder; cut back to the step of a resume
losses.parquet     the same as columns, published with the model
tensorboard/       events for `tensorboard --logdir`, in the work folder
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch.utils.tensorboard import SummaryWriter

LOSS = "loss"
CURVE = "losses.jsonl"
BYTES_PER_GB = 1e9


class Figures:
    """The figures of all steps so far. Only the first rank has one."""

    def __init__(self, folder: Path, first: int, groups: Sequence[str]) -> None:
        self._path = folder / CURVE
        self._groups = groups
        kept = []
        if self._path.is_file():
            lines = self._path.read_text().splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] < first]
        self._path.write_text("".join(line + "\n" for line in kept))
        self._stream = self._path.open("a")
        # Beside the table: the work folder goes when the table is published.
        board = folder.parent.parent / "tensorboard" / folder.name
        self._board = SummaryWriter(str(board), purge_step=first)

    def add(self, step: int, figures: dict[str, float], speed: dict[str, float]) -> None:
        """What a step came to, the same however often it is run, and how fast it was."""
        self._stream.write(json.dumps({"step": step, **figures}) + "\n")
        self._stream.flush()
        for name, value in {**figures, **speed}.items():
            self._board.add_scalar(name.replace(": ", "/"), value, step)

    def table(self) -> pa.Table:
        """All steps; what was not measured at a step is null."""
        rows: list[dict[str, Any]] = [json.loads(line) for line in self._path.read_text().splitlines()]
        names = list(dict.fromkeys(name for row in rows for name in row))
        return pa.table({name: [row.get(name) for row in rows] for name in names})

    def close(self) -> None:
        self._stream.close()
        self._board.close()


class Clock:
    """Where the time of a training goes, over all its starts: the steps themselves, waits, and what was lost."""

    def __init__(self, begun: float | None) -> None:
        """`begun`: when the training was started for the first time, in seconds since 1970."""
        self.begun = time.time() if begun is None else begun
        self._step_started = time.monotonic()
        self.waited = self.productive = 0.0

    def wait_over(self, seconds: float) -> None:
        """The batch of a step came after so many seconds."""
        self.waited += seconds

    def step_over(self) -> float:
        """The seconds since the last step was over."""
        now = time.monotonic()
        seconds, self._step_started = now - self._step_started, now
        return seconds

    def skip(self) -> None:
        """What was done since the last step (a checkpoint, an evaluation) belongs to no step."""
        self._step_started = time.monotonic()

    def goodput(self, productive_seconds: float) -> float:
        """The share of the time since the very first start in which steps were taken that count."""
        return productive_seconds / max(time.time() - self.begun, productive_seconds, 1e-9)


def peak_memory(device: torch.device) -> float:
    """The most memory that was used so far, in GB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / BYTES_PER_GB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / BYTES_PER_GB
