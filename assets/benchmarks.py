"""The benchmark: what each model answers, how it scores, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from assets import checks
from assets.crawls import WORLD_KEY
from assets.foundations import FOUNDATIONS
from assets.layout import Layout
from assets.stage_asset import Finished, StageAsset
from pipelines.answer import spec as answer
from pipelines.download.spec import NAME as RAW_PAIRS
from pipelines.filter.spec import NAME as FILTERED_PAIRS
from pipelines.lake import manifest as manifests
from pipelines.recipe import Recipe
from pipelines.report import spec as report
from pipelines.score.spec import NAME as CLIP_SCORES
from pipelines.score_answers import spec as score_answers
from pipelines.shard.spec import NAME as TRAINING_SHARDS
from pipelines.stage import StageSpec
from pipelines.translate.spec import NAME as TRANSLATIONS

CRAWL_TABLES = (RAW_PAIRS, CLIP_SCORES, FILTERED_PAIRS, TRANSLATIONS, TRAINING_SHARDS)
"""What the report tells of each crawl; also the names of the report's inputs."""
Place = tuple[str, ...]
"""Where a table lies below the workspace; also its asset's key, below the recipe's name."""


def answers_asset(recipe: Recipe, layout: Layout, model: Place, place: Place, group: str) -> StageAsset:
    """What the model at `model` answers to every benchmark question."""

    def spec(_: str) -> StageSpec:
        return answer.AnswerSpec(
            output=layout.table(*place),
            model=layout.table(*model),
            benchmarks={"world": layout.table("world")},
            parameters=recipe.benchmarks.model_copy(update={"languages": recipe.languages}),
        )

    return StageAsset(
        key=layout.key(*place),
        stage=answer.STAGE,
        spec=spec,
        group=group,
        upstream=[layout.key(*model), *([WORLD_KEY] if recipe.world is not None else [])],
        checks=[checks.checksums(), checks.non_empty()],
        kinds=frozenset({"pytorch", "parquet"}),
        description=f"Answers to every benchmark question, in {' and '.join(recipe.languages)}.",
    )


def score_assets(
    recipe: Recipe,
    layout: Layout,
    *,
    models: Mapping[str, Place],
    mixes: Mapping[str, Place],
    answers: Mapping[str, Place],
    folder: Place = (),
    parameters: report.ReportParameters,
    group: str = "benchmark",
) -> list[StageAsset]:
    """The scores of some models, and the report on them; each mapping goes by the model's name."""
    scores = layout.table(*folder, score_answers.NAME)
    world = layout.table("world")

    def scores_spec(_: str) -> StageSpec:
        return score_answers.ScoreAnswersSpec(
            output=scores, answers=_tables(layout, answers), benchmarks={"world": world}
        )

    def report_spec(_: str) -> StageSpec:
        truth = {}
        if recipe.world is not None and recipe.world.crawl in layout.crawls_with(RAW_PAIRS):
            truth[recipe.world.crawl] = manifests.file(world, "truth.parquet")
        return report.ReportSpec(
            output=layout.table(*folder, report.NAME),
            **{name: layout.crawls_with(name) for name in CRAWL_TABLES},
            truth=truth,
            foundations={name: layout.table("foundations", name) for name in FOUNDATIONS},
            instruction_mixes=_tables(layout, mixes),
            models=_tables(layout, models),
            answers=_tables(layout, answers),
            scores=scores,
            benchmarks={"world": world},
            parameters=parameters,
        )

    scores_key = layout.key(*folder, score_answers.NAME)
    return [
        StageAsset(
            key=scores_key,
            stage=score_answers.STAGE,
            spec=scores_spec,
            group=group,
            upstream=[layout.key(*place) for place in answers.values()],
            checks=[checks.checksums(), checks.scores_complete()],
            kinds=frozenset({"python", "json"}),
            description=(
                "Circular accuracy, open answers and the share of answers in the asked language, by model "
                "and language, with confidence intervals."
            ),
        ),
        StageAsset(
            key=layout.key(*folder, report.NAME),
            stage=report.STAGE,
            spec=report_spec,
            group=group,
            upstream=[
                scores_key,
                *(layout.key(*place) for place in [*mixes.values(), *models.values()]),
                *(dg.AssetKey(name) for name in CRAWL_TABLES),
            ],
            checks=[checks.checksums()],
            kinds=frozenset({"python", "html"}),
            afterwards=show_results,
            description="What the paper claims and what this run shows: one page, and the same as JSON.",
        ),
    ]


def _tables(layout: Layout, places: Mapping[str, Place]) -> dict[str, Path]:
    return {name: layout.table(*place) for name, place in places.items()}


def show_results(done: Finished) -> None:
    """Print the scores, and where the report is."""
    from pipelines.report.terminal import read_results, terminal_table  # loads what the web UI need not

    results = done.table / report.RESULTS
    shown = terminal_table(read_results(results))
    done.console.results(f"{shown}\n\nreport   {done.table / report.PAGE}\nresults  {results}")
