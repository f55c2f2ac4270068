"""The schedule that keeps filter results up to date with the threshold, the model and the code."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from assets.partitions import registered
from assets.stage_asset import StageAsset
from pipelines.errors import BadInput
from pipelines.stage import fingerprint, input_versions, why_not_reusable

WEEKLY = "0 3 * * 1"


def refilter_schedule(job: dg.UnresolvedAssetJobDefinition, *stages: StageAsset) -> dg.ScheduleDefinition:
    """Each week asks for one run of `job` per crawl whose filter result is missing or out of date.

    `stages`: what the filter result comes from, and at last itself, in order.
    """

    @dg.schedule(
        name="refilter_stale",
        cron_schedule=WEEKLY,
        job=job,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Filters the crawls again whose threshold, model or code changed; skips the rest.",
    )
    def refilter_stale(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        day = context.scheduled_execution_time.date().isoformat()
        requests: list[dg.RunRequest] = []
        skipped: list[str] = []
        for crawl in registered(context.instance):
            try:
                why, version = _staleness(crawl, stages)
            except BadInput as error:
                skipped.append(f"{crawl}: {error.what} ({error.where}); {error.remedy}")
                continue
            if why:
                context.log.info(f"{crawl}: {why}")
                # The day lets a run that failed be asked for again by the next tick.
                requests.append(dg.RunRequest(run_key=f"{crawl}:{version}:{day}", partition_key=crawl))
            else:
                skipped.append(f"{crawl}: its filter result is up to date")
        for words in skipped:
            context.log.info(f"skipped {words}")
        return requests or dg.SkipReason("\n".join(skipped) or "no crawl is registered")

    return refilter_stale


def _staleness(crawl: str, stages: Sequence[StageAsset]) -> tuple[str, str]:
    """Why the first stale table of the crawl is out of date ("" if none is), and what it would be made of.

    Raises:
        BadInput: an input does not exist yet, so that there is nothing to filter.
    """
    for declared in stages:
        spec = declared.spec(crawl)
        made, why = why_not_reusable(declared.stage, spec)
        if made is None:
            version = fingerprint(declared.stage, spec, input_versions(spec))
            return f"{declared.stage.name}: {why}", version
    return "", ""
