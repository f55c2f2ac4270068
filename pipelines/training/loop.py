"""The training loop: one step reads from top to bottom, and a kill at any step changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.packing import PackingError, use_packed_attention
from pipelines.errors import BadInput, Interrupted
from pipelines.progress import Progress
from pipelines.stage import Work
from pipelines.training.account import Account
from pipelines.training.engine import digest_of, join_group, make_engine
from pipelines.training.gap import HeldOut, pivot_gap
from pipelines.training.loader import StepBatches, load_ahead
from pipelines.training.modes import training_mode
from pipelines.training.order import Order, PoolOfLikes, make_order
from pipelines.training.plan import PackPlan, make_plan
from pipelines.training.samples import Samples, measure
from pipelines.training.spec import Optimisation
from pipelines.training.speed import speed_up
from pipelines.training.state import frozen_digest, resume, save
from pipelines.training.stopping import stop_requests

LOSSES = "losses.parquet"


@dataclass(frozen=True)
class Trained:
    """What is left of a training: the trained weights by name (float32; on the first rank), and figures for a person."""

    weights: dict[str, Tensor]
    metrics: dict[str, Any]


def train(
    model: nn.Module, samples: Samples, *, pad: int, optimisation: Optimisation,
    work: Work, progress: Progress, what: str, plan: PackPlan | None = None, held_out: HeldOut | None = None,
) -> Trained:  # fmt: skip
    """Train `model` on `samples` in the order of `plan`; go on from the newest whole checkpoint in the work folder.

    `model(ids, labels, pixels, packing=, supervision=)` gives the loss of each supervised token. Without a plan, one is
    made of the samples. Killed at any moment and started again, on as many ranks, it ends with the same weights to the bit: the
    data order and the random numbers are functions of the step, and all other state is in the checkpoint.
    On another number of ranks it sees the same batches, and sums them in another order.

    Raises:
        BadInput: the gradient stopped being finite (no step is taken with such a one), or the checkpoint is of another training.
        Interrupted: SIGTERM came; a checkpoint was written.
    """
    rank, ranks = join_group()
    if plan is None:
        plan = _plan_of(samples, optimisation)
    if plan.packed:
        with _packing_refused():
            use_packed_attention(model, optimisation.pack_tokens)
    fits = {"data plan": plan.digest, "frozen weights": frozen_digest(model, optimisation)}
    engine = make_engine(speed_up(model, optimisation), optimisation)
    training_mode(model)
    frozen_before = digest_of(engine.frozen_parameters())
    first = resume(engine, work, fits, progress)
    account = Account(engine, plan, optimisation, work, progress, first)
    width = optimisation.pack_tokens if optimisation.compile else None
    batches = load_ahead(
        StepBatches(samples, plan, rank, ranks, pad, optimisation.micro_batch, width), first, optimisation.data_workers
    )  # fmt: skip

    progress.start(what, optimisation.steps, unit="step", done=first)
    gap_every = max(1, optimisation.steps // 10)
    with stop_requests() as stop:
        for step in range(first, optimisation.steps):
            if stop.agreed():
                account.read()
                save(work, step, engine, fits, optimisation)
                raise Interrupted(f"{what}: saved at step {step}")
            if held_out is not None and step % gap_every == 0:
                account.add_gap(step, pivot_gap(engine, held_out, pad=pad))

            micro_batches = account.wait_for(batches)
            # Random numbers are a function of the step and the rank, so they are no state either.
            torch.manual_seed(_step_seed(optimisation.seed, step, rank))
            engine.set_rate(account.rate_share(step))
            for batch in micro_batches:
                with _packing_refused():
                    losses = engine.forward(batch)
                account.count(batch, losses)
                # Divided by the whole batch's tokens, which the plan knows: no rank asks another.
                engine.backward(losses.sum() / plan.supervised(step))
            stepped = engine.step()
            account.step_over(step, stepped.gradient_norm, stepped.taken)

            done = step + 1
            if done % optimisation.checkpoint_every == 0 and done < optimisation.steps:
                account.read()
                save(work, done, engine, fits, optimisation)
                account.clock.skip()
        account.read()

    if digest_of(engine.frozen_parameters()) != frozen_before:
        raise AssertionError("a frozen weight changed during the training")
    weights = engine.trained_weights()
    metrics = account.metrics(samples=len(samples))
    if account.figures is not None:
        if held_out is not None:
            metrics |= account.last_gap
        pq.write_table(account.figures.table(), work.out / LOSSES)
        account.figures.close()
    dist.barrier()
    return Trained(weights, metrics)


@contextmanager
def _packing_refused() -> Iterator[None]:
    """In a person's words, where a language model cannot be trained on packed rows."""
    try:
        yield
    except PackingError as error:
        raise BadInput(
            f"this language model cannot be trained on packed rows: {error}",
            where="optimisation.pack_tokens",
            remedy="leave pack_tokens out, and rows are padded; or, where it is a window, let pack_tokens not exceed it",
        ) from error


def _plan_of(samples: Samples, optimisation: Optimisation) -> PackPlan:
    measures = measure(samples)
    everything = np.arange(len(samples))
    if optimisation.sample_tokens is not None:
        everything = everything[measures.tokens <= optimisation.sample_tokens]
    if not len(everything):
        raise BadInput(
            "no sample can be trained on", where="optimisation.sample_tokens",
            remedy="name training data, and let samples be as long as they are",
        )  # fmt: skip
    if optimisation.pack_tokens is None:
        # Rows are padded to the longest of a batch, so samples of like length go together.
        likes = PoolOfLikes(
            everything, (optimisation.seed,), measures.tokens[everything], optimisation.batch_size
        )
        order = Order([likes], [1.0])
    else:
        order = make_order({"all": everything}, None, optimisation.seed)
    return make_plan(
        order, measures, steps=optimisation.steps, batch_size=optimisation.batch_size,
        pack_tokens=optimisation.pack_tokens, multiple=optimisation.packs_multiple,
    )  # fmt: skip


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=7).digest(), "big")
