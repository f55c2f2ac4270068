"""Where stages run. An asset never asks: it hands a job to `Compute` and reads the manifest after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import dagster as dg
from pydantic import Field

from pipelines.launch.local import LocalLauncher
from pipelines.launch.spec import JobSpec, Launcher, Report


class Compute(dg.ConfigurableResource):
    """The launcher of the mode that is set."""

    mode: Literal["local"] = Field(default="local", description="`local`: subprocesses of this machine")

    def run(self, job: JobSpec, on_report: Callable[[Report], None]) -> None:
        """Run `job` to its end; see `pipelines.launch.spec.Launcher` for what it raises."""
        launcher: Launcher = {"local": LocalLauncher}[self.mode]()
        launcher.run(job, on_report)
