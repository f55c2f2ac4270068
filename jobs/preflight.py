"""`python -m jobs.preflight`: is everything there that a recipe needs, and what will it cost? Before it costs anything.

Checks the recipe, its data, the digests of everything that will be reused, and in the cluster the account's rights,
queues, quota and the image; then prints hours, GPU-hours and price of each table. Exit code 42 if anything is
missing or the budget does not last.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import dagster as dg

from assets.console import table
from assets.graph import SWEEP, graph
from assets.partitions import registered
from assets.stage_asset import StageAsset
from assets.systems.graph import system_graph
from jobs.definitions import active_recipe
from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput
from pipelines.fingerprint import input_versions
from pipelines.lake import manifest as manifests
from pipelines.launch import estimate as estimates
from pipelines.launch.api import Api
from pipelines.launch.cluster import Cluster, read_cluster
from pipelines.launch.estimate import Estimate
from pipelines.launch.preflight import problems
from pipelines.recipe import Recipe
from pipelines.stage import why_not_reusable
from pipelines.systems.read import read_any
from pipelines.systems.recipe import System


def examine(declared: StageAsset, crawl: str, *, inputs_to_come: bool) -> tuple[Estimate, list[str]]:
    """What a table will take, and what is wrong with its inputs; those that are still to be made may be missing."""
    name = "/".join([*declared.key.path, *([crawl] if crawl else [])])
    last: float | None = None
    try:
        spec = declared.spec(crawl)
        last = manifests.read(spec.output).seconds if manifests.exists(spec.output) else None
        reused = why_not_reusable(declared.stage, spec)[0] is not None
        if not reused:
            input_versions(spec)
        return estimates.estimate(name, declared.resources, last_seconds=last, reused=reused), []
    except BadInput as error:
        taken = estimates.estimate(name, declared.resources, last_seconds=last, reused=False)
        return taken, [] if inputs_to_come else [f"{name}: {error}"]


def examine_all(recipe: Recipe | System, crawls: list[str], sweep: bool) -> tuple[list[Estimate], list[str]]:
    """Every table of the recipe, in the order of the graph."""
    taken: list[Estimate] = []
    wrong: list[str] = []
    to_be_made: set[dg.AssetKey] = set()
    made = system_graph(recipe) if isinstance(recipe, System) else graph(recipe)
    for declared in made.assets:
        if SWEEP in declared.key.path and not sweep:
            continue
        for crawl in crawls if declared.by_crawl else [""]:
            inputs_to_come = not to_be_made.isdisjoint(declared.upstream)
            one, found = examine(declared, crawl, inputs_to_come=inputs_to_come)
            taken.append(one)
            wrong += found
            if one.source != "reused":
                to_be_made.add(declared.key)
    return taken, wrong


def report(taken: list[Estimate], cluster: Cluster) -> str:
    """The table that a person reads before saying yes."""

    def shown(value: float | None, digits: int) -> str:
        return "?" if value is None else f"{value:,.{digits}f}"

    rows = [
        [
            one.name,
            f"{one.resources.nodes} x {one.resources.gpus}",
            "spot" if one.resources.spot else "",
            shown(one.hours, 2), shown(one.gpu_hours, 1), shown(one.cost(cluster), 2), one.source,
        ]
        for one in taken
    ]  # fmt: skip
    header = ["table", "nodes x GPUs", "", "hours", "GPU-hours", cluster.prices.currency, "hours from"]
    total = estimates.total_cost(taken, cluster)
    gpu_hours = sum(one.gpu_hours or 0.0 for one in taken)
    return (
        f"{table(header, rows)}\n\ntotal: {gpu_hours:,.1f} GPU-hours, {total:,.2f} {cluster.prices.currency}"
    )


def preflight(
    recipe: Recipe | System, cluster: Cluster, crawls: list[str], *, budget: float | None, sweep: bool = False
) -> str:
    """The report.

    Raises:
        BadInput: something is missing (all of it is named), or the budget does not last.
    """
    taken, wrong = examine_all(recipe, crawls, sweep)
    needed = {one.name: one.resources for one in taken if one.source != "reused"}
    wrong += problems(cluster, Api(cluster), needed)
    if wrong:
        raise BadInput(
            "this would not run:\n    " + "\n    ".join(dict.fromkeys(wrong)),
            where=f"recipe {recipe.name!r}, namespace {cluster.namespace!r}",
            remedy="mend each of these, and run the preflight again",
        )
    words = report(taken, cluster)
    print(words)  # noqa: T201 - what the command is for
    estimates.hold_against_budget(taken, cluster, budget if budget is not None else cluster.budget)
    return words


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.preflight", description=__doc__)
    parser.add_argument("--recipe", type=Path, help="the recipe; without it, the active one (RECIPE)")
    parser.add_argument("--cluster", type=Path, help="the cluster's file; without it, CLUSTER_FILE")
    parser.add_argument("--crawl", action="append", help="of these crawls; without it, all registered ones")
    parser.add_argument("--budget", type=float, help="stop above this; without it, the cluster's budget")
    parser.add_argument("--sweep", action="store_true", help="with the sweep over shares of translations")
    arguments = parser.parse_args()
    try:
        recipe = read_any(arguments.recipe) if arguments.recipe else active_recipe()
        with dg.DagsterInstance.get() as instance:
            crawls = arguments.crawl or registered(instance)
        if not crawls and isinstance(recipe, Recipe) and recipe.world is not None:
            crawls = [recipe.world.crawl]
        preflight(
            recipe, read_cluster(arguments.cluster), crawls, budget=arguments.budget, sweep=arguments.sweep
        )
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - as above
        sys.exit(BAD_INPUT_EXIT_CODE)


if __name__ == "__main__":
    main()
