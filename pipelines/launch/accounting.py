"""What a job takes: time in the queue, GPU-hours, their price, and how much of the work counted."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pipelines.launch.attempt import Attempt
from pipelines.launch.cluster import Cluster
from pipelines.launch.kueue import PLACE
from pipelines.launch.spec import JobSpec, Report, Usage


@dataclass
class Account:
    """The sums over a job's attempts."""

    cluster: Cluster
    spec: JobSpec
    usage: Usage = field(default_factory=lambda: Usage(attempts=0))
    best_start: int | None = None
    """The furthest step from which an attempt went on."""
    fruitless: int = 0
    """Attempts in a row that went on from no further than one before."""
    _first: int | None = None
    _start: int | None = None
    _last: int = 0
    _done_steps: int = 0

    def begin(self, job: str) -> None:
        """An attempt begins, in the job of this name."""
        self.usage.attempts += 1
        self.usage.job = job
        self._start = None

    def see(self, report: Report) -> None:
        """A report: steps are counted, restarts of the count noticed, and the first place in the queue."""
        if report["kind"] == "state" and self.usage.first_place is None and PLACE in report["figures"]:
            self.usage.first_place = int(report["figures"][PLACE])
        if report["kind"] != "progress" or report["unit"] != "step":
            return
        done = int(report["done"])
        if self._start is None:
            self._start = self._last = done
            self._first = done if self._first is None else self._first
        self._done_steps += max(done - self._last, 0)
        self._last = done

    def end(self, attempt: Attempt) -> None:
        """An attempt is over, or followed no more. Each pod counts from when it had its node until it ended."""
        now = time.time()
        began = min(attempt.running_since or now, now)
        self.usage.queued_seconds += max(began - attempt.created, 0.0)
        ends = [now if until is None else until for _, until in attempt.held.values()]
        self.usage.running_seconds += max(max(ends, default=began) - began, 0.0)
        hours = attempt.held_seconds(now) / 3600
        self.usage.gpu_hours += hours * self.spec.resources.gpus
        if price := self.cluster.price_of_pod(self.spec.resources):
            self.usage.cost = (self.usage.cost or 0.0) + hours * price
        start = self._start or 0
        if self.best_start is None or start > self.best_start:
            self.best_start, self.fruitless = start, 0
        else:
            self.fruitless += 1
        if self._first is not None and self._done_steps:
            self.usage.goodput = min((self._last - self._first) / self._done_steps, 1.0)

    def report(self) -> Report:
        """What it took so far, also where it failed."""
        usage, figures = self.usage, {"GPU-hours": self.usage.gpu_hours}
        words = f"{self.spec.name} took {usage.running_seconds / 3600:.2f} h in {usage.attempts} attempts"
        words += f", {usage.gpu_hours:,.2f} GPU-hours"
        if usage.cost is not None:
            figures["cost"] = usage.cost
            words += f", {usage.cost:,.2f} {self.cluster.prices.currency}"
        return {"kind": "usage", "stage": self.spec.name, "text": words, "figures": figures}
