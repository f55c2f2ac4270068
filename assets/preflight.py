"""Is everything there that a recipe needs, and what will it cost? Before it costs anything.

Checks the recipe, its data, the digests of everything that will be reused, and in the cluster the account's rights,
queues, quota and the image; then shows hours, GPU-hours and price of each table.
"""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg

from assets.console import table
from assets.estimates import examine_all, requests
from assets.graph import SWEEP, graph
from assets.partitions import registered
from assets.stage_asset import StageAsset
from assets.systems.graph import system_graph
from pipelines.errors import BadInput
from pipelines.launch import estimate as estimates
from pipelines.launch.api import Api
from pipelines.launch.cluster import Cluster
from pipelines.launch.estimate import Estimate
from pipelines.launch.preflight import problems
from pipelines.recipe import Recipe
from pipelines.systems.recipe import System


def report(taken: list[Estimate], cluster: Cluster) -> str:
    """The table that a person reads before saying yes."""

    def shown(value: float | None, digits: int) -> str:
        return "?" if value is None else f"{value:,.{digits}f}"

    rows = [
        [
            one.name,
            f"{one.resources.pods_at_once} x {one.resources.gpus}",
            "spot" if one.resources.spot else "",
            shown(one.hours, 2), shown(one.gpu_hours, 1), shown(one.cost(cluster), 2), one.source,
        ]
        for one in taken
    ]  # fmt: skip
    header = ["table", "pods x GPUs", "", "hours", "GPU-hours", cluster.prices.currency, "hours from"]
    total = estimates.total_cost(taken, cluster)
    gpu_hours = sum(one.gpu_hours or 0.0 for one in taken)
    return (
        f"{table(header, rows)}\n\ntotal: {gpu_hours:,.1f} GPU-hours, {total:,.2f} {cluster.prices.currency}"
    )


def preflight(
    recipe: Recipe | System, cluster: Cluster, crawls: list[str], *, budget: float | None, say: Callable[[str], None] = print,
    sweep: bool = False, instance: dg.DagsterInstance | None = None,
) -> str:  # fmt: skip
    """The report, which is said before the budget is held against it.

    Raises:
        BadInput: something is missing (all of it is named), or the budget does not last.
    """
    taken, wrong = examine_all(_assets(recipe, sweep=sweep), crawls, instance)
    needed = {one.name: one.resources for one in taken if one.source != "reused"}
    wrong += problems(cluster, Api(cluster), needed)
    if wrong:
        raise BadInput(
            "this would not run:\n    " + "\n    ".join(dict.fromkeys(wrong)),
            where=f"recipe {recipe.name!r}, namespace {cluster.namespace!r}",
            remedy="mend each of these, and run the preflight again",
        )
    words = report(taken, cluster)
    say(words)
    estimates.hold_against_budget(taken, cluster, budget if budget is not None else cluster.budget)
    return words


def requests_to_servers(recipe: Recipe | System, crawls: list[str], *, sweep: bool = False) -> str:
    """What translators and judges behind servers would be asked for, a line per table; needs no cluster."""
    found = requests(_assets(recipe, sweep=sweep), crawls)
    return "\n".join(f"{name}: {words}" for name, words in found) or "no table of this recipe asks a server"


def _assets(recipe: Recipe | System, *, sweep: bool) -> list[StageAsset]:
    made = system_graph(recipe) if isinstance(recipe, System) else graph(recipe)
    return [declared for declared in made.assets if sweep or SWEEP not in declared.key.path]


def crawls_of(recipe: Recipe | System, instance: dg.DagsterInstance) -> list[str]:
    """All registered crawls; before the first run, the recipe's own."""
    own = [recipe.world.crawl] if isinstance(recipe, Recipe) and recipe.world is not None else []
    return registered(instance) or own
