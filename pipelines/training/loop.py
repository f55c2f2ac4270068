"""The training loop: one step reads from top to bottom, and a kill at any step changes nothing."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch.distributed as dist
from torch import Tensor, nn

from pipelines.errors import BadInput, Interrupted
from pipelines.progress import Progress
from pipelines.stage import Work
from pipelines.training import checkpoint
from pipelines.training.engine import Engine, join_group, sum_over_ranks
from pipelines.training.plan import DataPlan
from pipelines.training.samples import Samples, collate
from pipelines.training.spec import Optimisation

LOSSES = "losses.parquet"


@dataclass(frozen=True)
class Trained:
    """What is left of a training: the trained weights by name (float32), and figures for a person."""

    weights: dict[str, Tensor]
    metrics: dict[str, Any]


def cosine_share(step: int, steps: int, *, warmup: int, final: float) -> float:
    """The learning rate of a step, as a share of the peak: linear warm-up, then cosine decay to `final`."""
    if step < warmup:
        return (step + 1) / warmup
    decayed = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
    return final + (1 - final) * decayed


def train(
    model: nn.Module, samples: Samples, *, pad: int, optimisation: Optimisation,
    work: Work, progress: Progress, what: str,
) -> Trained:  # fmt: skip
    """Train `model` (ids, labels, pixels -> summed loss, tokens) on `samples`; go on from the newest whole checkpoint in the work folder.

    Killed at any moment and started again, it ends with the same weights to the bit: the data
    order is a function of the step, and all other state is in the checkpoint.

    Raises:
        BadInput: the loss stopped being finite; no step is taken with such a gradient.
        Interrupted: SIGTERM came; a checkpoint was written.
    """
    rank, ranks = join_group()
    engine = Engine(model, optimisation)
    plan = DataPlan(len(samples), optimisation.batch_size, optimisation.seed, samples.lengths)
    checkpoints = work.folder / "checkpoints"
    first = _resume(engine, checkpoints, progress)
    log = _Losses(work.folder / "losses.jsonl", first) if rank == 0 else None

    progress.start(what, optimisation.steps, unit="step", done=first)
    started, tokens_seen = time.monotonic(), 0.0
    with _stop_requests() as stop:
        for step in range(first, optimisation.steps):
            batch = collate(
                [samples.sample(index, epoch) for epoch, index in plan.share(step, rank, ranks)], pad=pad
            )
            # One exchange carries both: all ranks must agree on the tokens and on when to stop.
            tokens, stopping = sum_over_ranks(batch.supervised, float(stop.requested))
            if stopping:
                checkpoint.save(checkpoints, step, engine.save)
                raise Interrupted(f"{what}: saved at step {step}")

            engine.set_rate(
                cosine_share(
                    step, optimisation.steps,
                    warmup=optimisation.warmup_steps, final=optimisation.final_fraction,
                )
            )  # fmt: skip
            loss_sum = engine.forward(batch.ids, batch.labels, batch.pixels)
            (global_loss,) = sum_over_ranks(loss_sum.item())
            loss = global_loss / tokens
            if not math.isfinite(loss):
                raise BadInput(
                    f"the loss is {loss} at step {step}",
                    where=work.folder,
                    remedy="lower the learning rate, or look for broken samples in the shards",
                )
            engine.backward(loss_sum / tokens)
            norm = engine.step()

            tokens_seen += tokens
            if log is not None:
                log.add(step, loss, norm, tokens)
            progress.advance(1, loss=loss, tokens_per_second=tokens_seen / (time.monotonic() - started))
            done = step + 1
            if done % optimisation.checkpoint_every == 0 and done < optimisation.steps:
                checkpoint.save(checkpoints, done, engine.save)

    weights = engine.trained_weights()
    metrics = {
        "steps": optimisation.steps,
        "samples": len(samples),
        "epochs": round(optimisation.steps * optimisation.batch_size / len(samples), 3),
        "ranks": ranks,
        "precision": engine.precision,
        "trained_parameters": sum(value.numel() for value in weights.values()),
        "frozen_parameters": sum(p.numel() for p in model.parameters() if not p.requires_grad),
    }
    if log is not None:
        table = log.table()
        pq.write_table(table, work.out / LOSSES)
        last = table["loss"].to_pylist()[-20:]
        metrics["final_loss"] = round(sum(last) / len(last), 5)
        metrics["steps_per_second"] = round((optimisation.steps - first) / (time.monotonic() - started), 3)
    dist.barrier()
    return Trained(weights, metrics)


def _resume(engine: Engine, checkpoints: Path, progress: Progress) -> int:
    found = checkpoint.newest(checkpoints, progress.say)
    if found is None:
        return 0
    step = engine.load(found)
    progress.say(f"goes on from step {step}")
    return step


class _Losses:
    """The curve so far, one JSON line a step; what lies beyond the step of resume is forgotten."""

    def __init__(self, path: Path, first: int) -> None:
        self._path = path
        kept = []
        if path.is_file():
            lines = path.read_text().splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] < first]
        path.write_text("".join(line + "\n" for line in kept))
        self._stream = path.open("a")

    def add(self, step: int, loss: float, norm: float, tokens: float) -> None:
        record = {"step": step, "loss": loss, "gradient_norm": norm, "supervised_tokens": int(tokens)}
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()

    def table(self) -> pa.Table:
        return pa.Table.from_pylist([json.loads(line) for line in self._path.read_text().splitlines()])


class _Stop:
    requested = False


@contextmanager
def _stop_requests() -> Iterator[_Stop]:
    """SIGTERM and SIGINT ask for a stop at the next step, where the state can be saved."""
    stop = _Stop()

    def request(*_: object) -> None:
        stop.requested = True

    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
