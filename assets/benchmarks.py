"""The benchmark: what each model answers, how it scores, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg

from assets import benchmark_files, checks, drift, translation_benchmarks
from assets.foundations import FOUNDATIONS
from assets.layout import Layout
from assets.stage_asset import Finished, StageAsset
from pipelines.answer import spec as answer
from pipelines.benchmarks.plan import OtherModel
from pipelines.download.spec import NAME as RAW_PAIRS
from pipelines.filter.spec import NAME as FILTERED_PAIRS
from pipelines.lake import manifest as manifests
from pipelines.recipe import Chain
from pipelines.report import spec as report
from pipelines.score.spec import NAME as CLIP_SCORES
from pipelines.score_answers import spec as score_answers
from pipelines.shard.spec import NAME as TRAINING_SHARDS
from pipelines.stage import StageSpec
from pipelines.translate.spec import NAME as TRANSLATIONS

CRAWL_TABLES = (RAW_PAIRS, CLIP_SCORES, FILTERED_PAIRS, TRANSLATIONS, TRAINING_SHARDS)
"""What the report tells of each crawl; also the names of the report's inputs."""
CRAWL_KEYS = tuple(dg.AssetKey(name) for name in CRAWL_TABLES)
Place = tuple[str, ...]
"""Where a table lies below the workspace; also its asset's key, below the recipe's name."""


def answers_asset(
    recipe: Chain, layout: Layout, model: Place | OtherModel, place: Place, group: str
) -> StageAsset:
    """What a model answers to every benchmark question: the recipe's at this place, or one beside it."""
    languages = benchmark_files.languages(recipe)

    def spec(_: str) -> StageSpec:
        asked = recipe.benchmarks.asked
        other = model if isinstance(model, OtherModel) else OtherModel.model_construct()
        return answer.AnswerSpec(
            output=layout.table(*place),
            model=model.model if isinstance(model, OtherModel) else layout.table(*model),
            transformers_model=other.transformers_model,
            server=other.server,
            benchmarks=benchmark_files.tables(recipe, layout),
            parameters=asked.model_copy(update={"languages": asked.languages or languages}),
            batch_size=recipe.benchmarks.batch_size,
            conduct=recipe.benchmarks.conduct,
            cache=layout.requests,
        )

    own = [] if isinstance(model, OtherModel) else [layout.key(*model)]
    return StageAsset(
        key=layout.key(*place),
        stage=answer.STAGE,
        spec=spec,
        group=group,
        upstream=[*own, *benchmark_files.keys(recipe, layout)],
        checks=[checks.checksums(), checks.non_empty()],
        kinds=frozenset({"pytorch", "json"}),
        served=isinstance(model, OtherModel) and model.server is not None,
        description=f"Answers to every benchmark question, in {', '.join(languages) or 'every language there is'}.",
    )


def score_assets(
    recipe: Chain,
    layout: Layout,
    *,
    models: Mapping[str, Place],
    mixes: Mapping[str, Place],
    answers: Mapping[str, Place],
    folder: Place = (),
    parameters: report.ReportParameters,
    group: str = "benchmark",
    foundations: Sequence[str] = FOUNDATIONS,
    crawls: Sequence[dg.AssetKey] = CRAWL_KEYS,
) -> list[StageAsset]:
    """The scores of some models, and the report on them; each mapping goes by the model's name.

    `crawls`: the assets of the crawls that the report tells of.
    """
    scores = layout.table(*folder, score_answers.NAME)
    world = layout.table("world")
    plan = recipe.benchmarks

    def scores_spec(_: str) -> StageSpec:
        return score_answers.ScoreAnswersSpec(
            output=scores,
            answers=_tables(layout, answers),
            benchmarks=benchmark_files.tables(recipe, layout),
            judge=plan.judge,
            rules=plan.rules,
            calibration=plan.calibration,
            most_judge_failures=plan.most_judge_failures,
            conduct=plan.conduct,
            judge_cache=layout.requests,
            parameters=plan.scoring.model_copy(update={"pivot_language": recipe.pivot_language}),
        )

    def report_spec(_: str) -> StageSpec:
        truth = {}
        if recipe.world is not None and recipe.world.crawl in layout.crawls_with(RAW_PAIRS):
            truth[recipe.world.crawl] = manifests.file(world, "truth.parquet")
        return report.ReportSpec(
            output=layout.table(*folder, report.NAME),
            **{name: layout.crawls_with(name) for name in CRAWL_TABLES},
            truth=truth,
            foundations={name: layout.table("foundations", name) for name in foundations},
            test_sets=_tables(layout, test_sets),
            instruction_mixes=_tables(layout, mixes),
            models=_tables(layout, models),
            answers=_tables(layout, answers),
            scores=scores,
            benchmarks=benchmark_files.tables(recipe, layout),
            parameters=parameters.model_copy(
                update={
                    "recipe": recipe.name,
                    "sources": drift.sources(layout),
                    "keep_rate_drift": recipe.limits.keep_rate_drift,
                }
            ),
        )

    # Of the translator, which the sweep does not vary.
    test_sets = {} if folder else translation_benchmarks.places(recipe)
    scores_key = layout.key(*folder, score_answers.NAME)
    return [
        StageAsset(
            key=scores_key,
            stage=score_answers.STAGE,
            spec=scores_spec,
            group=group,
            upstream=[layout.key(*place) for place in answers.values()],
            checks=[
                checks.checksums(),
                checks.scores_complete(),
                checks.judge_failures(plan.most_judge_failures),
                checks.no_regression(plan.largest_drop, plan.compared_runs),
            ],
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
                *(layout.key(*place) for place in [*mixes.values(), *models.values(), *test_sets.values()]),
                *crawls,
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
    done.console.results(
        f"{shown}\n\nreport   {done.table / report.PAGE}\nresults  {results}\ncards    {done.table / report.CARDS}"
    )
