"""Is everything there that a recipe needs on the cluster, and what will it cost? Before it costs anything.

Exit code 42 if anything is missing or the budget does not last.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import dagster as dg

from assets.preflight import crawls_of, preflight, requests_to_servers
from jobs.definitions import active_recipe
from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput
from pipelines.launch.cluster import read_cluster
from pipelines.systems.read import read_any


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.preflight", description=__doc__)
    parser.add_argument("--recipe", type=Path, help="the recipe; without it, the active one (RECIPE)")
    parser.add_argument("--cluster", type=Path, help="the cluster's file; without it, CLUSTER_FILE")
    parser.add_argument("--crawl", action="append", help="of these crawls; without it, all registered ones")
    parser.add_argument("--budget", type=float, help="stop above this; without it, the cluster's budget")
    parser.add_argument(
        "--requests",
        action="store_true",
        help="only what servers that translate or judge would be asked for, and its cost; needs no cluster",
    )
    parser.add_argument("--sweep", action="store_true", help="with the sweep over shares of translations")
    arguments = parser.parse_args()
    try:
        recipe = read_any(arguments.recipe) if arguments.recipe else active_recipe()
        with dg.DagsterInstance.get() as instance:
            crawls = arguments.crawl or crawls_of(recipe, instance)
            if arguments.requests:
                print(requests_to_servers(recipe, crawls, sweep=arguments.sweep))  # noqa: T201 - a command's output
                return
            cluster = read_cluster(arguments.cluster)
            preflight(
                recipe, cluster, crawls, budget=arguments.budget, sweep=arguments.sweep, instance=instance
            )
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - as above
        sys.exit(BAD_INPUT_EXIT_CODE)


if __name__ == "__main__":
    main()
