"""The jobs of a system: everything at once, a crawl alone, a stage alone."""

from __future__ import annotations

import dagster as dg

from assets.budget import Budget
from assets.console import Console, explain_failure
from assets.resources import Compute
from assets.stage_asset import stage_asset
from assets.systems.graph import SystemGraph, system_graph
from jobs.janitor import janitor_job, janitor_schedule
from jobs.preflight_job import preflight_job
from pipelines.systems.chain import crawl_uses
from pipelines.systems.recipe import System

CRAWL_JOB = "crawl_"
"""Before a crawl's name in the name of its job, hyphens as underscores."""


def system_definitions(system: System) -> dg.Definitions:
    """Everything that Dagster shows and runs for a system."""
    made = system_graph(system)
    compute, budget = Compute.of_environment(), Budget(made.assets)
    return dg.Definitions(
        assets=[stage_asset(declared, budget) for declared in made.assets],
        jobs=[main_job(made), *crawl_jobs(made), *stage_jobs(made), janitor_job, preflight_job(system)],
        schedules=[janitor_schedule(compute.mode)],
        resources={"compute": compute, "console": Console()},
        executor=dg.in_process_executor,
    )


def main_job(made: SystemGraph) -> dg.UnresolvedAssetJobDefinition:
    """All that the last asset is made of."""
    return _job(
        made.system.identifier, made.system.description, dg.AssetSelection.assets(made.last).upstream()
    )


def crawl_jobs(made: SystemGraph) -> list[dg.UnresolvedAssetJobDefinition]:
    """One job per crawl: several of them can run at a time, before the main one."""
    uses = [use for training in made.system.stages.values() for use in crawl_uses(training)]
    return [
        _job(
            f"{CRAWL_JOB}{use.identifier}",
            f"The crawl {use.crawl}, with the foundations that it needs.",
            dg.AssetSelection.assets(*(asset.key for asset in made.of_crawl(use.identifier))).upstream(),
        )
        for use in uses
    ]


def stage_jobs(made: SystemGraph) -> list[dg.UnresolvedAssetJobDefinition]:
    """One job per stage that no crawl has: its assets alone, from tables that are there."""
    of_crawls = {
        asset.key
        for training in made.system.stages.values()
        for use in crawl_uses(training)
        for asset in made.of_crawl(use.identifier)
    }
    keys: dict[str, list[dg.AssetKey]] = {}
    for asset in made.assets:
        if asset.key not in of_crawls:
            keys.setdefault(asset.stage.name.rpartition("/")[2], []).append(asset.key)
    return [
        _job(name, f"The stage {name} alone.", dg.AssetSelection.assets(*of_stage))
        for name, of_stage in keys.items()
    ]


def _job(name: str, description: str, selection: dg.AssetSelection) -> dg.UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        name, selection, description=description, hooks={explain_failure}, executor_def=dg.in_process_executor
    )
