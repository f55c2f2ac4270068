"""Before the web UI starts: the active recipe's own crawl becomes a partition that can be chosen there.

`python -m jobs.prepare`. The same is done by the sensor `new_crawls`, half a minute later.
"""

from __future__ import annotations

import sys

import dagster as dg

from assets.partitions import CRAWLS
from jobs.definitions import active_recipe
from pipelines.errors import BadInput
from pipelines.recipe import Recipe
from pipelines.systems.recipe import System


def prepare(recipe: Recipe | System, instance: dg.DagsterInstance) -> None:
    """Register the crawl of the recipe's world, and make the folder that the sensor watches."""
    recipe.crawls_folder.mkdir(parents=True, exist_ok=True)
    if isinstance(recipe, Recipe) and recipe.world is not None:
        instance.add_dynamic_partitions(str(CRAWLS.name), [recipe.world.crawl])


if __name__ == "__main__":
    try:
        with dg.DagsterInstance.get() as used:
            prepare(active_recipe(), used)
    except BadInput as error:
        sys.exit(f"error: {error}")
