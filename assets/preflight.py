"""Is everything there that a recipe needs, and what will it cost? Before it costs anything.

Checks the recipe, its data, the digests of everything that will be reused, and in the cluster the account's rights,
queues, quota and the image; then shows hours, GPU-hours and price of each table.
"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator

import dagster as dg

from assets.console import table
from assets.estimates import examine_all, requests
from assets.graph import SWEEP, graph
from assets.partitions import registered
from assets.stage_asset import StageAsset, job_of
from assets.systems.graph import system_graph
from pipelines.errors import BadInput
from pipelines.lake import location
from pipelines.launch import estimate as estimates
from pipelines.launch.api import Api
from pipelines.launch.cluster import Cluster
from pipelines.launch.estimate import Estimate
from pipelines.launch.preflight import problems, refusals
from pipelines.launch.spec import JobSpec
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
    words = (
        f"{table(header, rows)}\n\ntotal: {gpu_hours:,.1f} GPU-hours, {total:,.2f} {cluster.prices.currency}"
    )
    if unknown := [one for one in taken if one.hours is None]:
        words += f"; without {len(unknown)} tables of unknown hours: set `hours` in the recipe's `resources`"
    if unpriced := [one.name for one in taken if one.source != "reused" and not cluster.price(one.resources)]:
        words += (
            f"\nno price is set for the machines of {len(unpriced)} tables (`prices` in the cluster's file)"
        )
    return words


def preflight(
    recipe: Recipe | System, cluster: Cluster, crawls: list[str], *, budget: float | None, say: Callable[[str], None] = print,
    sweep: bool = False, instance: dg.DagsterInstance | None = None,
) -> str:  # fmt: skip
    """The report, which is said before the budget is held against it.

    Raises:
        BadInput: something is missing (all of it is named), or the budget does not last.
    """
    location.check_usable(recipe.folder if isinstance(recipe, System) else recipe.workspace)
    assets = _assets(recipe, sweep=sweep)
    taken, wrong = examine_all(assets, crawls, instance)
    needed = {one.name: one.resources for one in taken if one.source != "reused"}
    api = Api(cluster)
    wrong += problems(cluster, api, needed)
    wrong += refusals(cluster, api, _jobs(assets, crawls, needed))
    if wrong:
        raise BadInput(
            "this would not run:\n" + textwrap.indent("\n".join(dict.fromkeys(wrong)), "    "),
            where=f"recipe {recipe.name!r}, namespace {cluster.namespace!r}",
            remedy="mend each of these, and run the preflight again",
        )
    words = report(taken, cluster)
    if isinstance(recipe, System) and any(one.hours is None and one.resources.gpus for one in taken):
        # Reckoned with torch, which is not where this runs in a cluster.
        words += "\n`python -m pipelines.dry_run` with this recipe reckons the hours of its trainings"
    say(words)
    estimates.hold_against_budget(taken, cluster, budget if budget is not None else cluster.budget)
    return words


def _jobs(assets: Iterable[StageAsset], crawls: list[str], needed: Collection[str]) -> Iterator[JobSpec]:
    """The jobs that would make the needed tables, as far as they can be described before their inputs are there."""
    for declared in assets:
        for crawl in crawls if declared.by_crawl else [""]:
            if declared.name_of(crawl) not in needed:
                continue
            with contextlib.suppress(BadInput):
                yield job_of(declared, declared.spec(crawl), crawl)


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
