"""The budget, held before anything is launched on a cluster: in every run, however it was started."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from assets.estimates import examine_all
from assets.partitions import PARTITION_TAG
from assets.stage_asset import StageAsset
from pipelines.errors import BadInput
from pipelines.launch import estimate as estimates
from pipelines.launch.cluster import Cluster
from pipelines.launch.estimate import hold_against_budget


class Budget:
    """What one run may cost: the sum over all tables that it makes.

    Before its first launch the whole run is estimated; before each later one, what was spent so far with what this one will
    take. Asked by the assets themselves, so that neither web UI, nor sensor, nor backfill comes past it.
    """

    def __init__(self, assets: Sequence[StageAsset]) -> None:
        self._assets = assets
        self._spent: dict[str, float] = {}

    def admit(self, context: dg.AssetExecutionContext, declared: StageAsset, cluster: Cluster) -> None:
        """Let `declared` be launched, or not.

        Raises:
            BadInput: the budget does not last, or nobody knows for how much of the run.
        """
        if cluster.budget is None:
            return
        run = context.run
        crawl = run.tags.get(PARTITION_TAG, "")
        crawls = [crawl] if crawl else []
        if run.run_id not in self._spent:
            keys = run.asset_selection or set(context.job_def.asset_layer.executable_asset_keys)
            selected = [asset for asset in self._assets if asset.key in keys]
            hold_against_budget(examine_all(selected, crawls, context.instance)[0], cluster, cluster.budget)
            self._spent[run.run_id] = 0.0
            return
        (wanted,), _ = examine_all([declared], crawls, context.instance)
        spent = self._spent[run.run_id]
        asked = estimates.total_cost([wanted], cluster)
        if spent + asked > cluster.budget:
            raise BadInput(
                f"this run has cost {spent:,.2f} {cluster.prices.currency}, {wanted.name} would cost {asked:,.2f} more, "
                f"and the budget is {cluster.budget:,.2f}",
                where="the cluster's file: prices, budget",
                remedy="raise the budget and run it again: what was made is reused; or correct the recipe's `hours`",
            )

    def spend(self, context: dg.AssetExecutionContext, cost: float | None) -> None:
        """Note what a job of the run has cost."""
        if context.run.run_id in self._spent:
            self._spent[context.run.run_id] += cost or 0.0
