"""The Dagster definitions of one recipe: its assets, jobs, sensor and schedule."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from assets.budget import Budget
from assets.console import Console, explain_failure
from assets.graph import SWEEP, Graph, graph
from assets.partitions import PARTITION_TAG
from assets.resources import Compute
from assets.stage_asset import stage_asset
from jobs.ingestion import Ingestion
from jobs.janitor import janitor_job, janitor_schedule
from jobs.preflight_job import preflight_job
from jobs.register_crawl import register_crawl_job
from jobs.schedules import refilter_schedule
from jobs.sensors import new_crawls_sensor
from jobs.systems import system_definitions
from pipelines.conversations.spec import NAME as TRANSLATED_CONVERSATIONS
from pipelines.download.spec import NAME as RAW_PAIRS
from pipelines.recipe import Recipe
from pipelines.systems.read import read_any
from pipelines.systems.recipe import System

RECIPE_VARIABLE = "RECIPE"
"""Names the recipe file that the code location is made from."""
CURATION = ("pair_facts", "filtered_pairs")
"""The stages that decide about a crawl's conversations, in order."""
FILTERING = ("clip_scores", *CURATION)
"""The stages that decide about a crawl's pairs, in order."""
DEFAULT_RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"


def active_recipe() -> Recipe | System:
    """The recipe that the environment names, or the quickstart's.

    Raises:
        BadInput: the recipe is missing or malformed.
    """
    return read_any(Path(os.environ.get(RECIPE_VARIABLE) or DEFAULT_RECIPE))


def definitions(recipe: Recipe | System) -> dg.Definitions:
    """Everything that Dagster shows and runs for `recipe`."""
    if isinstance(recipe, System):
        return system_definitions(recipe)
    made = graph(recipe)
    ingestion, refilter = crawl_jobs(made)
    own_crawls = () if recipe.world is None else (recipe.world.crawl,)
    compute = Compute.of_environment()
    budget = Budget(made.assets)
    filtering = [asset for name in FILTERING for asset in made.of_stage(name)]
    return dg.Definitions(
        assets=[stage_asset(declared, budget) for declared in made.assets],
        jobs=[
            *chain_jobs(made),
            *ingestion.jobs,
            refilter,
            *stage_jobs(made),
            register_crawl_job(made.layout.workspace, ingestion),
            janitor_job,
            preflight_job(recipe),
        ],
        sensors=[new_crawls_sensor(ingestion, made.layout.workspace, recipe.crawls_folder, own_crawls)],
        schedules=[refilter_schedule(refilter, *filtering), janitor_schedule(compute.mode)],
        resources={"compute": compute, "console": Console()},
        executor=dg.in_process_executor,
    )


def chain_jobs(made: Graph) -> list[dg.UnresolvedAssetJobDefinition]:
    """The main job and the sweep: everything that their reports are made of.

    Where the recipe has a world, they make its crawl too. The partition's name stands in the
    jobs' tags, so that neither command line nor web UI has to give it; the asset `world`, the
    first to run, registers it.
    """
    recipe = made.recipe
    tags = {} if recipe.world is None else {PARTITION_TAG: recipe.world.crawl}
    crawls = [asset.key for asset in made.assets if asset.by_crawl]

    def selection(report: dg.AssetKey) -> dg.AssetSelection:
        chain = dg.AssetSelection.assets(report).upstream()
        return chain if recipe.world is not None else chain - dg.AssetSelection.assets(*crawls)

    return [
        _job(recipe.name, recipe.description or "The whole chain.", selection(made.report), tags),
        _job(
            SWEEP,
            "How much of the target languages tuning needs: one tuning per share, from one pretrained model.",
            selection(made.sweep_report),
            tags,
        ),
    ]


def crawl_jobs(made: Graph) -> tuple[Ingestion, dg.UnresolvedAssetJobDefinition]:
    """The jobs that take in a crawl, and `refilter`, for the crawl in the run's partition tag."""
    keys = {asset.stage.name: asset.key for asset in made.assets if asset.by_crawl}
    raw_pairs, translated = keys.pop(RAW_PAIRS), keys.pop(TRANSLATED_CONVERSATIONS)
    taken_in = [raw_pairs, *(keys[name] for name in CURATION)]
    pairs, conversations, translated_conversations = (
        _job(name, description, dg.AssetSelection.assets(*assets))
        for name, description, assets in (
            (
                "ingest",
                "From a registered crawl's URL list to its training shards.",
                [raw_pairs, *keys.values()],
            ),
            (
                "ingest_conversations",
                "Takes in a registered crawl of conversations, which an instruction mix then reads, and filters it.",
                taken_in,
            ),
            (
                "ingest_translated_conversations",
                "As ingest_conversations, and translates the conversations into the target languages.",
                [*taken_in, translated],
            ),
        )
    )
    recipe = made.recipe
    ingestion = Ingestion(
        pairs,
        conversations,
        translated_conversations,
        recipe.pivot_language,
        tuple(recipe.tuning.untranslated),
    )
    refilter = _job(
        "refilter",
        "Filters a crawl again, and makes what follows from it. Scores are only made again if the model changed.",
        dg.AssetSelection.assets(*keys.values()),
    )
    return ingestion, refilter


def stage_jobs(made: Graph) -> list[dg.UnresolvedAssetJobDefinition]:
    """One job per stage of the main chain: all of its assets (tuning: every variant)."""
    keys: dict[str, list[dg.AssetKey]] = {}
    for asset in made.assets:
        if SWEEP not in asset.key.path:
            keys.setdefault(asset.stage.name.rpartition("/")[2], []).append(asset.key)
    return [
        _job(name, f"The stage {name} alone.", dg.AssetSelection.assets(*of_stage))
        for name, of_stage in keys.items()
    ]


def _job(
    name: str, description: str, selection: dg.AssetSelection, tags: dict[str, str] | None = None
) -> dg.UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        name, selection, description=description, tags=tags, hooks={explain_failure},
        executor_def=dg.in_process_executor,
    )  # fmt: skip
