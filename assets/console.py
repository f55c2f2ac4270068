"""What a person sees of a run on the terminal: which stage of how many, its rate, and the time left.

On a terminal the current stage is one line that is redrawn; in a log file or in Dagster's
captured output it is a line every ten seconds. Dagster's own events are not shown here.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from typing import Any, TextIO

import dagster as dg
from dagster import HookContext
from pydantic import PrivateAttr

from assets.partitions import no_crawl_named
from pipelines.launch.spec import Report
from pipelines.progress import FIGURES_SHOWN

LINE_SECONDS = 10.0
"""Time between two lines where no line can be redrawn."""
REDRAW_SECONDS = 0.25
OP_PREFIX = "make_"
"""Ops are called as the assets that they make, with this before it: see assets/stage_asset.py."""
ERASE_LINE = "\r\x1b[K"


class Console(dg.ConfigurableResource):
    """The terminal of one run."""

    _terminal: TextIO | None = PrivateAttr(default=None)
    _stages_begun: int = PrivateAttr(default=0)
    _label: str = PrivateAttr(default="")
    _last: float = PrivateAttr(default=0.0)
    _running: bool = PrivateAttr(default=False)
    _failures: list[str] = PrivateAttr(default_factory=list)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        # Dagster is about to send file descriptor 2 to a file; a copy still leads to the terminal.
        if sys.stderr.isatty():
            self._terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8")

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        for words in self._failures:
            self._write(words, stays=True)
        if self._failures:
            self._write(
                "\nFinished tables are kept: when this is mended, run the same command to go on.", stays=True
            )
        elif self._running:
            self._write(
                f"\n{self._label}  stopped. Nothing half-made was published: run the same command to go on.",
                stays=True,
            )
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None

    def begin(self, asset: str, stages: int) -> None:
        """The next of the run's `stages` begins."""
        self._stages_begun += 1
        width = len(str(stages))
        self._label = f"[{self._stages_begun:>{width}}/{stages}] {asset}"
        self._last = 0.0
        self._running = True

    def end(self) -> None:
        """The stage ended, with a table or without."""
        self._running = False

    def say(self, words: str) -> None:
        """A line that stays."""
        self._write(f"{self._label}  {words}", stays=True)

    def results(self, words: str) -> None:
        """What the run was for: on standard output."""
        print(f"\n{words}", flush=True)

    def fail(self, step: str, words: str) -> None:
        """Why a step failed: shown when the run has ended, so that it is the last thing on the screen."""
        self._failures.append(f"\nFAILED: {step.removeprefix(OP_PREFIX).replace('__', '/')}\n{words}")

    def show(self, report: Report) -> None:
        """A progress record or a message of the stage that is running."""
        if report["kind"] in ("message", "state"):
            self.say(report["text"])
            return
        if report["kind"] == "log":
            # To standard output, which Dagster keeps with the run.
            print(report["text"], end="", flush=True)
            return
        now = time.monotonic()
        if now - self._last < (REDRAW_SECONDS if self._terminal else LINE_SECONDS):
            return
        self._last = now
        self._write(f"{self._label}  {progress_words(report)}", stays=False)

    def _write(self, line: str, *, stays: bool) -> None:
        if self._terminal is None:
            print(line, file=sys.stderr, flush=True)
            return
        if not stays:
            line = line[: shutil.get_terminal_size().columns - 1]
        self._terminal.write(f"{ERASE_LINE}{line}" + ("\n" if stays else ""))
        self._terminal.flush()


@dg.failure_hook(required_resource_keys={"console"})
def explain_failure(context: HookContext) -> None:
    """Put the reason of a failure on the terminal: what was raised on purpose in its own words."""
    error = context.op_exception
    if isinstance(error, dg.Failure) and error.description:
        words = error.description
    elif isinstance(error, dg.DagsterInvariantViolationError) and "non-partitioned run" in str(error):
        # Dagster looks for the versions of an asset's inputs before our own check is reached.
        words = str(no_crawl_named(context.instance, context.run_id, context.job_name))
    elif isinstance(error, dg.DagsterError):
        words = str(error)
    else:
        words = "".join(traceback.format_exception(error))
    context.resources.console.fail(context.step_key, words)


def progress_words(report: Report) -> str:
    """`training 120/600 · 4.1 step/s · 1 min 57 s left · loss 2.31`."""
    done, total = report["done"], report["total"]
    parts = [f"{report['phase']} {done:,}" + ("" if total is None else f"/{total:,}")]
    if report["rate"]:
        parts.append(f"{report['rate']:.3g} {report['unit']}/s")
    if report["seconds_left"] is not None:
        parts.append(f"{duration(report['seconds_left'])} left")
    first = list(report["figures"].items())[:FIGURES_SHOWN]
    parts.extend(f"{name} {value:.4g}" for name, value in first)
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """A length of time for a person: `48 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 10 or seconds == whole else f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def table(header: list[str], rows: list[list[Any]]) -> str:
    """Rows in columns of plain text, numbers to the right."""
    cells = [
        header,
        *[[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows],
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))]

    def line(row: list[str]) -> str:
        parts = [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ]
        return "  ".join(parts).rstrip()

    return "\n".join([line(cells[0]), line(["─" * width for width in widths]), *map(line, cells[1:])])
