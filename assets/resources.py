"""Where stages run. An asset never asks: it hands a job to `Compute` and reads the manifest after."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import dagster as dg
from pydantic import Field

from pipelines.errors import BadInput
from pipelines.launch.cluster import CLUSTER_VARIABLE, Cluster, read_cluster
from pipelines.launch.local import LocalLauncher
from pipelines.launch.spec import JobSpec, Launcher, Report, Usage

if TYPE_CHECKING:
    from pipelines.launch.janitor import Swept
    from pipelines.launch.kubernetes import KubernetesLauncher

MODE_VARIABLE = "COMPUTE_MODE"
"""`local` or `kubernetes`: where the jobs of the code location run."""
Mode = Literal["local", "kubernetes"]


class Compute(dg.ConfigurableResource):
    """The launcher of the mode that is set."""

    mode: Mode = Field(
        default="local", description="`local`: subprocesses of this machine; `kubernetes`: groups of pods"
    )
    cluster_file: str = Field(
        default="", description=f"describes the cluster; without it, what {CLUSTER_VARIABLE} names"
    )

    @classmethod
    def of_environment(cls) -> Compute:
        """The mode that the environment sets.

        Raises:
            BadInput: there is no such mode.
        """
        mode = os.environ.get(MODE_VARIABLE) or "local"
        if mode not in ("local", "kubernetes"):
            raise BadInput(
                f"there is no mode {mode!r}",
                where=f"the environment variable {MODE_VARIABLE}",
                remedy="set it to local or kubernetes",
            )
        return cls(mode=cast(Mode, mode))

    def sweep(self, patience_seconds: float, notice_seconds: float) -> list[Swept]:
        """Mark the cluster's jobs that no run has waited for in this time; end those marked before the notice."""
        if self.mode == "local":
            return []
        from pipelines.launch.janitor import sweep

        api = self._kubernetes().api
        return sweep(api, patience_seconds=patience_seconds, notice_seconds=notice_seconds)

    def cluster(self) -> Cluster | None:
        """The cluster on which work runs; None where it runs on this machine.

        Raises:
            BadInput: the cluster's file is missing or malformed.
        """
        if self.mode == "local":
            return None
        return read_cluster(Path(self.cluster_file) if self.cluster_file else None)

    def _kubernetes(self, cancelled: Callable[[], bool] = lambda: False) -> KubernetesLauncher:
        from pipelines.launch.kubernetes import KubernetesLauncher

        return KubernetesLauncher(cast(Cluster, self.cluster()), cancelled)

    def launcher(self, cancelled: Callable[[], bool] = lambda: False) -> Launcher:
        """The launcher. Kubernetes' client is imported where it is used alone. `cancelled`: whether somebody asked for the end of
        the run.

        Raises:
            BadInput: the cluster's file is missing or malformed, or the cluster cannot be used.
        """
        if self.mode == "local":
            return LocalLauncher()
        return self._kubernetes(cancelled)

    def run(
        self,
        job: JobSpec,
        on_report: Callable[[Report], None],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Usage:
        """Run `job` to its end; see `pipelines.launch.spec.Launcher` for what it raises."""
        return self.launcher(cancelled).run(job, on_report)
