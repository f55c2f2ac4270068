"""What is launched: a stage's module and its spec document. The same for a laptop and a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.stage import StageSpec

Report = dict[str, Any]
"""One progress record, as `pipelines.progress` writes them."""


@dataclass(frozen=True)
class JobSpec:
    """One job: `python -m module SPEC`, or torchrun of it when it is `distributed`."""

    name: str
    module: str
    spec: StageSpec
    distributed: bool = False
    """Whether its ranks form one group (training). `spec.processes` says how many there are."""


class Launcher(Protocol):
    """Runs a job to its end. The result is the table's manifest; the return value is nothing.

    Raises:
        BadInput: the job ended with the exit code of bad input.
        Interrupted: the job saved its state and stopped.
        StageFailed: any other end without success; holds the job's last words.
    """

    def run(self, job: JobSpec, on_report: Callable[[Report], None]) -> None: ...
