"""The training loop: one step reads from top to bottom, and a kill at any step changes nothing."""

from __future__ import annotations

import hashlib
import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.packing import use_packed_attention
from pipelines.errors import BadInput, Interrupted
from pipelines.lake.manifest import write_atomically
from pipelines.progress import Progress
from pipelines.stage import Work
from pipelines.training import checkpoint
from pipelines.training.engine import Engine, digest_of, join_group, make_engine
from pipelines.training.figures import CURVE, Clock, Figures, peak_memory
from pipelines.training.flops import peak_of, step_cost
from pipelines.training.gap import HeldOut, pivot_gap
from pipelines.training.loader import StepBatches, load_ahead
from pipelines.training.order import Order, PoolOfLikes, make_order
from pipelines.training.plan import PackPlan, make_plan
from pipelines.training.routing import Routing, expert_use
from pipelines.training.samples import Batch, Samples, measure
from pipelines.training.spec import Optimisation
from pipelines.training.speed import speed_up

LOSSES = "losses.parquet"
BEGUN = "begun.json"
CHECKPOINTS = "checkpoints"
READ_EVERY_ON_GPU = 10
"""Steps between two looks at the losses: each is a wait for the GPU. A stop is agreed on without one."""


@dataclass(frozen=True)
class Trained:
    """What is left of a training: the trained weights by name (float32; on the first rank), and figures for a person."""

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
        use_packed_attention(model)
    fits = {"data plan": plan.digest, "frozen weights": _frozen_digest(model, optimisation)}
    engine = make_engine(speed_up(model, optimisation), optimisation)
    frozen_before = digest_of(engine.frozen_parameters())
    first = _resume(engine, work, fits, progress)
    run = _Run(engine, plan, optimisation, work, progress, first)
    width = optimisation.pack_tokens if optimisation.compile else None
    batches = load_ahead(
        StepBatches(samples, plan, rank, ranks, pad, optimisation.micro_batch, width), first, optimisation.data_workers
    )  # fmt: skip

    progress.start(what, optimisation.steps, unit="step", done=first)
    gap_every = max(1, optimisation.steps // 10)
    with _stop_requests() as stop:
        for step in range(first, optimisation.steps):
            if stop.agreed():
                run.read()
                _save(work, step, engine, fits, optimisation)
                raise Interrupted(f"{what}: saved at step {step}")
            if held_out is not None and step % gap_every == 0:
                run.add_gap(step, pivot_gap(engine, held_out, pad=pad))

            micro_batches = run.wait_for(batches)
            # Random numbers are a function of the step and the rank, so they are no state either.
            torch.manual_seed(_step_seed(optimisation.seed, step, rank))
            engine.set_rate(run.rate_share(step))
            for batch in micro_batches:
                losses = engine.forward(batch)
                run.count(batch, losses)
                # Divided by the whole batch's tokens, which the plan knows: no rank asks another.
                engine.backward(losses.sum() / plan.supervised(step))
            stepped = engine.step()
            run.step_over(step, stepped.gradient_norm, stepped.taken)

            done = step + 1
            if done % optimisation.checkpoint_every == 0 and done < optimisation.steps:
                run.read()
                _save(work, done, engine, fits, optimisation)
                run.clock.skip()
        run.read()

    if digest_of(engine.frozen_parameters()) != frozen_before:
        raise AssertionError("a frozen weight changed during the training")
    weights = engine.trained_weights()
    metrics = run.metrics(samples=len(samples))
    if run.figures is not None:
        if held_out is not None:
            metrics |= run.last_gap
        pq.write_table(run.figures.table(), work.out / LOSSES)
        run.figures.close()
    dist.barrier()
    return Trained(weights, metrics)


class _Run:
    """What is counted while a training runs: losses by group, tokens, time."""

    def __init__(
        self, engine: Engine, plan: PackPlan, optimisation: Optimisation, work: Work, progress: Progress, first: int
    ) -> None:  # fmt: skip
        self.engine, self.plan, self.optimisation, self.progress = engine, plan, optimisation, progress
        self.first = first
        self.clock = Clock(_first_start(work, engine.rank))
        self.figures = Figures(work.folder, first, plan.groups) if engine.rank == 0 else None
        self.last_gap: dict[str, float] = {}
        self._gap: dict[str, float] = {}
        self._read_every = READ_EVERY_ON_GPU if engine.device.type == "cuda" else 1
        self._routing = Routing.of(engine.model, plan.groups, engine.device, optimisation.steps)
        self._sums, self._routed = self._no_sums()
        self._unread: list[tuple[int, Tensor, Tensor, float, bool, float, float]] = []
        self._counts = [0.0] * 4
        self._waited = 0.0
        self._skipped = self._skipped_in_a_row = 0
        self._totals = {"tokens": 0.0, "padding": 0.0, "waited": 0.0, "seconds": 0.0, "flops": 0.0}
        self._cost = step_cost(engine.model)
        self._peak = peak_of(engine.device, engine.precision)

    def _no_sums(self) -> tuple[Tensor, Tensor]:
        losses = torch.zeros(len(self.plan.groups), 2, dtype=torch.float64, device=self.engine.device)
        return losses, losses.new_zeros(0) if self._routing is None else self._routing.no_sums()

    def rate_share(self, step: int) -> float:
        settings = self.optimisation
        return cosine_share(step, settings.steps, warmup=settings.warmup_steps, final=settings.final_fraction)

    def wait_for(self, batches: Iterator[list[Batch]]) -> list[Batch]:
        """The step's batches, on the engine's device; the wait for them is counted."""
        started = time.monotonic()
        found = [batch.to(self.engine.device) for batch in next(batches)]
        self._waited = time.monotonic() - started
        return found

    def count(self, batch: Batch, losses: Tensor) -> None:
        """A batch's losses by group: added up where they are, read later."""
        values = losses.detach().double()
        self._sums.index_add_(0, batch.groups, torch.stack((values, torch.ones_like(values)), dim=1))
        if self._routing is not None and batch.images:
            weights: Any = self.engine.model.routing
            self._routing.count(self._routed, weights, batch.image_groups)
        lengths = batch.packing.lengths if batch.packing else [batch.tokens / len(batch.ids)] * len(batch.ids)
        pairs = sum(length * length / 2 for length in lengths)
        flops = self._cost.of(
            tokens=batch.tokens, supervised=batch.supervised, images=batch.images, pairs=pairs
        )
        for place, value in enumerate((batch.tokens, batch.ids.numel(), batch.images, flops)):
            self._counts[place] += value

    def step_over(self, step: int, norm: float, taken: bool) -> None:
        """A step was taken, or refused for a gradient that is no number."""
        self._skipped_in_a_row = 0 if taken else self._skipped_in_a_row + 1
        self._skipped += not taken
        if not taken and (
            self.optimisation.not_finite == "stop" or self._skipped_in_a_row >= self.optimisation.most_skipped
        ):
            raise BadInput(
                f"the gradient of step {step} is no finite number; the step was not taken",
                where=f"{self.progress.stage}, step {step}",
                remedy="lower the learning rate, or look for broken samples in the shards",
            )
        if not taken:
            self.progress.say(f"step {step} was skipped: its gradient is no finite number")
        self._unread.append(
            (step, self._sums, self._routed, norm, taken, self.clock.step_over(), self._waited)
        )
        self._sums, self._routed = self._no_sums()
        if (step + 1) % self._read_every == 0:
            self.read()

    def add_gap(self, step: int, gap: dict[str, float]) -> None:
        self._gap = self.last_gap = {name: round(value, 5) for name, value in gap.items()}
        self.clock.skip()

    def read(self) -> None:
        """Sum the unread steps' losses over the ranks, and note them; one exchange, and one wait for a GPU."""
        if not self._unread:
            return
        steps = len(self._unread)
        counts = torch.tensor(self._counts, dtype=torch.float64, device=self.engine.device)
        together = torch.cat(
            [part.flatten() for _, sums, routed, *_ in self._unread for part in (sums, routed)] + [counts]
        )
        dist.all_reduce(together)
        *sums, tokens, positions, _images, flops = together.tolist()
        by_step = np.array(sums).reshape(steps, -1)
        seconds = sum(one[5] for one in self._unread)
        waited = sum(one[6] for one in self._unread)
        for name, value in zip(
            self._totals, (tokens, positions - tokens, waited, seconds, flops), strict=True
        ):
            self._totals[name] += value
        speed: dict[str, float] = {
            "tokens per second": tokens / seconds,
            "data wait": waited / seconds,
            "padding": 1 - tokens / positions,
            "memory GB": peak_memory(self.engine.device),
            "goodput": self._goodput(self._unread[-1][0] + 1),
        }
        if self._peak:
            speed["mfu"] = flops / seconds / self._peak / self.engine.ranks
        width = 2 * len(self.plan.groups)
        for (step, _, _, norm, taken, *_), row in zip(self._unread, by_step, strict=True):
            routed = {} if self._routing is None else self._routing.figures(step, row[width:].tolist())
            self._note(step, row[:width].reshape(-1, 2), norm, taken, speed, routed)
        self._unread, self._counts = [], [0.0] * 4

    def _goodput(self, done: int) -> float:
        """What was done in earlier starts, and still counts, is taken to have been as fast."""
        return self.clock.goodput(self._totals["seconds"] * done / (done - self.first))

    def _note(
        self, step: int, sums: np.ndarray, norm: float, taken: bool, speed: dict[str, float], routed: dict[str, float]
    ) -> None:  # fmt: skip
        loss = float(sums[:, 0].sum() / sums[:, 1].sum())
        if taken and not math.isfinite(loss):
            raise BadInput(
                f"the loss is {loss} at step {step}",
                where=f"{self.progress.stage}, step {step}",
                remedy="lower the learning rate, or look for broken samples in the shards",
            )
        if not taken:
            return
        rate = self.rate_share(step) * max(self.optimisation.learning_rates.values())
        by_group = {
            f"loss: {name}": total / tokens
            for name, (total, tokens) in zip(self.plan.groups, sums.tolist(), strict=True)
            if tokens
        }
        if self.figures is not None:
            named = {"loss": loss, "gradient_norm": norm, "supervised_tokens": float(sums[:, 1].sum()), "learning_rate": rate}  # fmt: skip
            self.figures.add(step, {**named, **by_group, **routed, **self._gap}, speed)
            self._gap = {}
        # The first few are what a terminal has room for; all are drawn in Dagster.
        gap = {name: value for name, value in self.last_gap.items() if name.startswith("pivot gap")}
        shown = {"loss": loss, "tokens per second": speed["tokens per second"], **gap}
        shown |= {"gradient norm": norm, "learning rate": rate, **speed, **self.last_gap, **by_group}
        self.progress.advance(1, **shown)

    def metrics(self, *, samples: int) -> dict[str, Any]:
        """Figures of the whole training, for a person."""
        settings, totals = self.optimisation, self._totals
        model = self.engine.model

        def elements(trained: bool) -> int:
            return sum(
                int(getattr(one, "ds_numel", one.numel()))
                for one in model.parameters()
                if one.requires_grad is trained
            )

        found: dict[str, Any] = {
            "steps": settings.steps,
            "samples": samples,
            "epochs": round(settings.steps * settings.batch_size / samples, 3),
            "ranks": self.engine.ranks,
            "precision": self.engine.precision,
            "data_plan": self.plan.digest,
            "trained_parameters": elements(True),
            "frozen_parameters": elements(False),
            "skipped_steps": self._skipped,
        }
        if totals["seconds"]:
            found["steps_per_second"] = round((settings.steps - self.first) / totals["seconds"], 3)
            found["tokens_per_second"] = round(totals["tokens"] / totals["seconds"], 1)
            found["padding"] = round(totals["padding"] / (totals["padding"] + totals["tokens"]), 4)
            found["data_wait"] = round(totals["waited"] / totals["seconds"], 4)
            found["peak_memory_gb"] = round(peak_memory(self.engine.device), 3)
            found["goodput"] = round(self._goodput(settings.steps), 4)
            if self._peak:
                found["mfu"] = round(totals["flops"] / totals["seconds"] / self._peak / self.engine.ranks, 4)
        if self.figures is not None:
            columns = self.figures.table().to_pydict()
            last = columns["loss"][-20:]
            found["final_loss"] = round(sum(last) / len(last), 5)
            if self._routing is not None:
                found["experts_by_language"] = expert_use(columns)
        return found


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


def _frozen_digest(model: nn.Module, optimisation: Optimisation) -> str:
    """Of the weights that the checkpoints do not hold, as they were loaded; the first rank's word counts for all."""
    from pipelines.training.engine import freeze_and_group

    freeze_and_group(model, optimisation)
    told = [""]
    if dist.get_rank() == 0:
        told[0] = digest_of(
            (name, one.detach()) for name, one in model.named_parameters() if not one.requires_grad
        )
    dist.broadcast_object_list(told)
    return told[0]


def _kept_checkpoints(work: Work) -> Path | None:
    return None if work.kept_at is None else work.kept_at / CHECKPOINTS


def _resume(engine: Engine, work: Work, fits: dict[str, str], progress: Progress) -> int:
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


def _save(work: Work, step: int, engine: Engine, fits: dict[str, str], optimisation: Optimisation) -> None:
    if engine.rank == 0:
        # Before the checkpoint: curves that reach further than it are cut back.
        work.keep(work.folder / CURVE)
        work.keep(work.folder / BEGUN)
    checkpoint.save(
        work.folder / CHECKPOINTS, step, engine, fits, kept=optimisation.checkpoints_kept,
        keep_every=optimisation.keep_every, remote=_kept_checkpoints(work),
    )  # fmt: skip


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=7).digest(), "big")


def _first_start(work: Work, rank: int) -> float:
    """When this training was started for the very first time: what goodput is measured against."""
    path = work.folder / BEGUN
    if path.is_file():
        return float(json.loads(path.read_text()))
    now = time.time()
    if rank == 0:
        write_atomically(path, json.dumps(now).encode())
    return now


class _Stop:
    """A wish of any rank to stop, on which all agree one step later, without a wait for a GPU."""

    requested = False

    def __init__(self) -> None:
        # A group of its own: the flag travels on the host, whatever the gradients travel on.
        self._group: Any = dist.new_group(backend="gloo")
        self._flag = torch.zeros(1)
        self._exchange: Any = None

    def agreed(self) -> bool:
        """Whether a rank had been asked to stop at the step before; all ranks call it once per step."""
        stopping = False
        if self._exchange is not None:
            self._exchange.wait()
            stopping = bool(self._flag.item())
        self._flag = torch.full((1,), float(self.requested))
        self._exchange = dist.all_reduce(self._flag, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        return stopping


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
