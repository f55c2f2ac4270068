"""What a recipe will cost before it costs anything: hours, GPU-hours and price of each stage, held against a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.errors import BadInput
from pipelines.launch.cluster import Cluster
from pipelines.launch.spec import Resources


@dataclass(frozen=True)
class Estimate:
    """One table that is to be made."""

    name: str
    resources: Resources
    hours: float | None
    """None: nobody said, and it was never made before."""
    source: str
    """Where the hours are from: `recipe`, `last time`, `reused`, `unknown`."""

    @property
    def gpu_hours(self) -> float | None:
        if not self.resources.gpus:
            return 0.0
        return None if self.hours is None else self.hours * self.resources.pods_at_once * self.resources.gpus

    def cost(self, cluster: Cluster) -> float | None:
        """In the currency of the cluster's prices."""
        price = cluster.price(self.resources)
        if not price:
            return 0.0
        return None if self.hours is None else self.hours * price


def estimate(name: str, resources: Resources, *, last_seconds: float | None, reused: bool) -> Estimate:
    """What the recipe says, or else what the stage took when this table was last made."""
    if reused:
        return Estimate(name, resources, 0.0, "reused")
    if resources.hours is not None:
        return Estimate(name, resources, resources.hours, "recipe")
    if last_seconds is not None:
        return Estimate(name, resources, last_seconds / 3600, "last time")
    return Estimate(name, resources, None, "unknown")


def total_cost(estimates: Sequence[Estimate], cluster: Cluster) -> float:
    """The sum of what is known."""
    return sum(one.cost(cluster) or 0.0 for one in estimates)


def hold_against_budget(estimates: Sequence[Estimate], cluster: Cluster, budget: float | None) -> None:
    """Stop where the sum is above the budget, or where a part of it is not known.

    Raises:
        BadInput: names the sum and the dearest stages, or the stages of unknown cost or price.
    """
    if budget is None:
        return
    unpriced = [
        one
        for one in estimates
        if one.hours != 0.0 and one.resources.gpus and not cluster.price(one.resources)
    ]
    if unpriced:
        raise BadInput(
            f"a budget is set, and the GPUs of these stages have no price: {', '.join(one.name for one in unpriced)}",
            where="the cluster's file: prices",
            remedy=f"set `{'spot_gpu' if unpriced[0].resources.spot else 'gpu'}` to what an hour of one costs",
        )
    unknown = [one.name for one in estimates if one.cost(cluster) is None]
    if unknown:
        raise BadInput(
            f"a budget is set, and nobody knows what these stages will cost: {', '.join(unknown)}",
            where="recipe: resources",
            remedy="set `hours` in the resources of each: what you expect",
        )
    total = total_cost(estimates, cluster)
    if total > budget:
        dearest = sorted(estimates, key=lambda one: -(one.cost(cluster) or 0.0))[:3]
        words = ", ".join(f"{one.name} {one.cost(cluster):,.2f}" for one in dearest)
        raise BadInput(
            f"this would cost {total:,.2f} {cluster.prices.currency}, and the budget is {budget:,.2f} (dearest: {words})",
            where="recipe: resources; the cluster's file: prices, budget",
            remedy="raise the budget, or shorten, shrink or use spot machines for the dearest stages",
        )
