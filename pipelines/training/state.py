"""What outlives a start of a training: its newest checkpoint, its curves, and when it first began."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch.distributed as dist
from torch import nn

from pipelines.lake.manifest import write_atomically
from pipelines.progress import Progress
from pipelines.stage import Work
from pipelines.training import checkpoint
from pipelines.training.engine import Engine, digest_of, freeze_and_group
from pipelines.training.figures import CURVE
from pipelines.training.spec import Optimisation

BEGUN = "begun.json"
CHECKPOINTS = "checkpoints"


def frozen_digest(model: nn.Module, optimisation: Optimisation) -> str:
    """Of the weights that the checkpoints do not hold, as they were loaded; the first rank's word counts for all."""
    freeze_and_group(model, optimisation)
    told = [""]
    if dist.get_rank() == 0:
        told[0] = digest_of(
            (name, one.detach()) for name, one in model.named_parameters() if not one.requires_grad
        )
    dist.broadcast_object_list(told)
    return told[0]


def first_start(work: Work, rank: int) -> float:
    """When this training was started for the very first time: what goodput is measured against."""
    path = work.folder / BEGUN
    if path.is_file():
        return float(json.loads(path.read_text()))
    now = time.time()
    if rank == 0:
        write_atomically(path, json.dumps(now).encode())
    return now


def resume(engine: Engine, work: Work, fits: dict[str, str], progress: Progress) -> int:
    checkpoints, kept = work.folder / CHECKPOINTS, _kept_checkpoints(work)
    if kept is None:
        found = checkpoint.newest(checkpoints, progress.say)
    else:
        if engine.rank == 0:
            work.restore([work.folder / CURVE, work.folder / BEGUN])
        found = checkpoint.fetch(kept, checkpoints, progress.say)
    if found is None:
        return 0
    step = checkpoint.load(found, engine, fits)
    if kept is not None:
        checkpoint.forget(found)
    progress.say(f"goes on from step {step}")
    return step


def save(work: Work, step: int, engine: Engine, fits: dict[str, str], optimisation: Optimisation) -> None:
    if engine.rank == 0:
        # Before the checkpoint: curves that reach further than it are cut back.
        work.keep(work.folder / CURVE)
        work.keep(work.folder / BEGUN)
    checkpoint.save(
        work.folder / CHECKPOINTS, step, engine, fits, kept=optimisation.checkpoints_kept,
        keep_every=optimisation.keep_every, remote=_kept_checkpoints(work),
    )  # fmt: skip


def _kept_checkpoints(work: Work) -> Path | None:
    return None if work.kept_at is None else work.kept_at / CHECKPOINTS
