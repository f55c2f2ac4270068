"""`python -m jobs.preflight`, and the job `preflight`: is everything there that a recipe needs, and what will it cost? Before it costs anything.

Checks the recipe, its data, the digests of everything that will be reused, and in the cluster the account's rights,
queues, quota and the image; then prints hours, GPU-hours and price of each table. Exit code 42 if anything is
missing or the budget does not last.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of an op's function.

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from assets.console import table
from assets.estimates import examine_all
from assets.graph import SWEEP, graph
from assets.partitions import registered
from assets.resources import MODE_VARIABLE, Compute
from assets.systems.graph import system_graph
from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput
from pipelines.launch import estimate as estimates
from pipelines.launch.api import Api
from pipelines.launch.cluster import Cluster, read_cluster
from pipelines.launch.estimate import Estimate
from pipelines.launch.preflight import problems
from pipelines.recipe import Recipe
from pipelines.systems.read import read_any
from pipelines.systems.recipe import System


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
    recipe: Recipe | System, cluster: Cluster, crawls: list[str], *, budget: float | None, say: Callable[[str], None] = print,
    sweep: bool = False,
) -> str:  # fmt: skip
    """The report, which is said before the budget is held against it.

    Raises:
        BadInput: something is missing (all of it is named), or the budget does not last.
    """
    made = system_graph(recipe) if isinstance(recipe, System) else graph(recipe)
    assets = [declared for declared in made.assets if sweep or SWEEP not in declared.key.path]
    taken, wrong = examine_all(assets, crawls)
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


def preflight_job(recipe: Recipe | System) -> dg.JobDefinition:
    """The same in the web UI: a run that fails where the command would."""

    @dg.op(description="Checks all that the recipe needs on the cluster, and prices it; launches nothing.")
    def check_before_launch(context: dg.OpExecutionContext, compute: Compute) -> None:
        try:
            cluster = compute.cluster()
            if cluster is None:
                raise BadInput(
                    "work runs on this machine: there is no cluster to check",
                    where=f"the environment variable {MODE_VARIABLE}",
                    remedy="set it to kubernetes in the code location's environment",
                )
            words = preflight(
                recipe, cluster, crawls_of(recipe, context.instance), budget=None, say=context.log.info
            )
        except BadInput as error:
            raise dg.Failure(description=str(error), allow_retries=False) from None
        context.add_output_metadata({"estimate": dg.MetadataValue.md(f"```\n{words}\n```")})

    @dg.job(
        name="preflight",
        executor_def=dg.in_process_executor,
        description="Is everything there that the recipe needs on the cluster, and what will it cost?",
    )
    def check() -> None:
        check_before_launch()

    return check


def crawls_of(recipe: Recipe | System, instance: dg.DagsterInstance) -> list[str]:
    """All registered crawls; before the first run, the recipe's own."""
    own = [recipe.world.crawl] if isinstance(recipe, Recipe) and recipe.world is not None else []
    return registered(instance) or own


def main() -> None:
    from jobs.definitions import active_recipe

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
            crawls = arguments.crawl or crawls_of(recipe, instance)
        preflight(
            recipe, read_cluster(arguments.cluster), crawls, budget=arguments.budget, sweep=arguments.sweep
        )
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - as above
        sys.exit(BAD_INPUT_EXIT_CODE)


if __name__ == "__main__":
    main()
