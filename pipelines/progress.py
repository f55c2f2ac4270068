"""Progress that a person sees at once and a launcher can follow from another process.

A stage reports through one `Progress`. On a terminal it draws a bar; when the environment
names a file in `PROGRESS_FILE`, each report is also a JSON line in it, which the launcher
tails (locally, or in an object store) and shows in Dagster. Results never travel this way:
they stand in the manifest.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

FILE_VARIABLE = "PROGRESS_FILE"
QUIET_VARIABLE = "PROGRESS_QUIET"
REPORT_SECONDS = 1.0
"""A loop may report each step; a line is written at most this often, so that no log is flooded."""

FIGURES_SHOWN = 4
"""Figures that a line of a terminal has room for: the first."""


class Progress:
    """How far a stage is: `done` of `total` units, and the figures worth watching."""

    def __init__(self, stage: str, *, silent: bool = False) -> None:
        self.stage = stage
        path = os.environ.get(FILE_VARIABLE)
        self._file = Path(path) if path and not silent else None
        self._silent = silent or bool(os.environ.get(QUIET_VARIABLE))
        self._bar: Any = None
        self._phase = ""
        self._started = self._last = 0.0
        self._start_at = 0

    def start(self, phase: str, total: int | None = None, *, unit: str = "row", done: int = 0) -> None:
        """Begin a phase of `total` units, of which `done` were there already (after a resume)."""
        self.close()
        self._phase, self._total, self._unit = phase, total, unit
        self._done = self._start_at = done
        self._started = time.monotonic()
        self._last = 0.0
        if not self._silent:
            self._bar = tqdm(
                total=total, initial=done, unit=unit, desc=f"{self.stage}: {phase}",
                file=sys.stderr, mininterval=0.5, dynamic_ncols=True, leave=True,
            )  # fmt: skip
        self._write({})

    def advance(self, units: int = 1, **figures: float) -> None:
        """`units` more are done; `figures` (loss, images kept, ...) are shown beside the rate."""
        self._done += units
        if self._bar is not None:
            if figures:
                first = list(figures.items())[:FIGURES_SHOWN]
                shown = {name: f"{value:.4g}" for name, value in first}
                self._bar.set_postfix(shown, refresh=False)
            self._bar.update(units)
        now = time.monotonic()
        if now - self._last >= REPORT_SECONDS or self._done == self._total:
            self._last = now
            self._write(figures)

    def say(self, message: str) -> None:
        """One line for a person: a resume, a reuse, a warning."""
        if self._bar is not None:
            self._bar.write(f"{self.stage}: {message}", file=sys.stderr)
        elif not self._silent:
            print(f"{self.stage}: {message}", file=sys.stderr, flush=True)
        self._append({"kind": "message", "stage": self.stage, "text": message})

    def end(self, code: int, words: str) -> None:
        """The stage ends without a table: its exit code and its last words."""
        self._append({"kind": "end", "stage": self.stage, "code": code, "text": words})

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _write(self, figures: dict[str, float]) -> None:
        elapsed = time.monotonic() - self._started
        rate = (self._done - self._start_at) / elapsed if elapsed > 0 else 0.0
        left = (self._total - self._done) / rate if self._total and rate > 0 else None
        self._append(
            {
                "kind": "progress",
                "stage": self.stage,
                "phase": self._phase,
                "unit": self._unit,
                "done": self._done,
                "total": self._total,
                "rate": round(rate, 3),
                "seconds_left": None if left is None else round(left, 1),
                "figures": {name: float(value) for name, value in figures.items()},
            }
        )

    def _append(self, record: dict[str, Any]) -> None:
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")
