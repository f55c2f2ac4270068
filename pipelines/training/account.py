"""What is counted while a training runs: losses by group, experts by language, tokens, time; told to a person as it goes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.progress import Progress
from pipelines.stage import Work
from pipelines.training.engine import Engine
from pipelines.training.figures import Clock, Figures, peak_memory
from pipelines.training.flops import peak_of, step_cost
from pipelines.training.plan import PackPlan
from pipelines.training.routing import Routing, expert_use
from pipelines.training.samples import Batch
from pipelines.training.schedule import cosine_share
from pipelines.training.spec import Optimisation
from pipelines.training.state import first_start

READ_EVERY_ON_GPU = 10
"""Steps between two looks at the losses: each is a wait for the GPU. A stop is agreed on without one."""


class Account:
    """What is counted while a training runs: losses by group, tokens, time."""

    def __init__(
        self, engine: Engine, plan: PackPlan, optimisation: Optimisation, work: Work, progress: Progress, first: int
    ) -> None:  # fmt: skip
        self.engine, self.plan, self.optimisation, self.progress = engine, plan, optimisation, progress
        self.first = first
        self.clock = Clock(first_start(work, engine.rank))
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
