"""The schedule that ends jobs in the cluster for which no run waits any more."""

# No `from __future__ import annotations`: Dagster reads the annotations of an op's function.

import dagster as dg

from assets.resources import Compute, Mode

HOURLY = "17 * * * *"
PATIENCE_SECONDS = 3 * 3600.0
"""A run whose worker died is started again within minutes: after this, nobody comes."""
NOTICE_SECONDS = 1800.0
"""Less than the time between two sweeps: what one finds abandoned and marks, the next deletes."""


@dg.op(
    description="Deletes the jobs that no run has waited for in three hours, when two sweeps found them so."
)
def sweep_jobs(context: dg.OpExecutionContext, compute: Compute) -> None:
    """Nothing to do where jobs run on this machine: they end with their run."""
    for swept in compute.sweep(PATIENCE_SECONDS, NOTICE_SECONDS):
        done = "deleted" if swept.deleted else "the next sweep deletes"
        context.log.warning(f"{done} {swept.name} ({swept.asset}): {swept.why}")


@dg.job(name="janitor", executor_def=dg.in_process_executor, description="Ends jobs that nobody waits for.")
def janitor_job() -> None:
    sweep_jobs()


def janitor_schedule(mode: Mode) -> dg.ScheduleDefinition:
    """Every hour. It runs from the start where jobs outlive their runs, and holds GPUs; on one machine they do not."""
    return dg.ScheduleDefinition(
        name="janitor",
        job=janitor_job,
        cron_schedule=HOURLY,
        default_status=dg.DefaultScheduleStatus.RUNNING
        if mode == "kubernetes"
        else dg.DefaultScheduleStatus.STOPPED,
    )
