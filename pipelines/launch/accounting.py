"""What a job takes: time in the queue, GPU-hours, their price, and how much of the work counted."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from pipelines.lake import location
from pipelines.lake.work import UNPUBLISHED
from pipelines.launch.attempt import Attempt
from pipelines.launch.cluster import Cluster
from pipelines.launch.kueue import PLACE
from pipelines.launch.spec import JobSpec, Report, Usage

log = logging.getLogger(__name__)


def kept_files(job: JobSpec) -> int:
    """Files in the object store with which the next attempt goes on; 0 where that cannot be seen from here."""
    if not location.is_remote(job.spec.output):
        return 0
    try:
        return len(location.listing(job.spec.output / UNPUBLISHED / job.fingerprint))
    except Exception as error:  # noqa: BLE001 - whatever the storage raises: the job is started again all the same
        log.warning("what %s left for its next attempt cannot be seen: %s", job.name, error)
        return 0


@dataclass
class Account:
    """The sums over a job's attempts."""

    cluster: Cluster
    spec: JobSpec
    usage: Usage = field(default_factory=lambda: Usage(attempts=0))
    best_start: int | None = None
    """The furthest step from which an attempt went on."""
    fruitless: int = 0
    """Attempts in a row that went on from no further than one before, and left no more behind for the next."""
    kept: int = 0
    """The most files that an attempt left for the next, so far."""
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

    def left_for_the_next(self, files: int) -> None:
        """Count what lies ready after a disruption: stages without steps get further by whole shards, chunks and batches."""
        if files > self.kept:
            self.kept, self.fruitless = files, 0

    def report(self) -> Report:
        """What it took so far, also where it failed."""
        usage, figures = self.usage, {"GPU-hours": self.usage.gpu_hours}
        words = f"{self.spec.name} took {usage.running_seconds / 3600:.2f} h in {usage.attempts} attempts"
        words += f", {usage.gpu_hours:,.2f} GPU-hours"
        if usage.cost is not None:
            figures["cost"] = usage.cost
            words += f", {usage.cost:,.2f} {self.cluster.prices.currency}"
        return {"kind": "usage", "stage": self.spec.name, "text": words, "figures": figures}
