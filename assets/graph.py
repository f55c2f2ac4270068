"""The graph of a recipe: every asset, and which of them its main job and its sweep are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import dagster as dg

from assets.benchmark_files import benchmark_files_assets
from assets.benchmarks import Place, answers_asset, score_assets
from assets.crawls import crawl_assets, world_asset
from assets.execution import with_execution
from assets.foundations import foundation_assets
from assets.layout import Layout
from assets.stage_asset import StageAsset
from assets.training import (
    PRETRAINED,
    Variant,
    pretrained_asset,
    pretraining_plan_asset,
    tuning_assets,
)
from assets.translation_benchmarks import translation_benchmark_assets
from pipelines.errors import BadInput
from pipelines.launch.spec import Resources
from pipelines.recipe import DEFAULT_RESOURCES, Chain, Recipe
from pipelines.report.spec import ReportParameters

SWEEP = "language_share"


@dataclass(frozen=True)
class Graph:
    """The assets of a recipe."""

    recipe: Recipe
    layout: Layout
    assets: tuple[StageAsset, ...]
    report: dg.AssetKey
    """The last asset of the main chain."""
    sweep_report: dg.AssetKey
    """The last asset of the sweep over the share of translated instructions."""

    def of_stage(self, name: str) -> list[StageAsset]:
        """The assets that this stage makes, the sweep's included."""
        return [asset for asset in self.assets if asset.stage.name == name]


def graph(recipe: Recipe) -> Graph:
    """Declare the assets of a recipe."""
    layout = Layout(recipe.workspace, recipe.name)
    variants = [Variant(name, share) for name, share in recipe.tuning.variants.items()]
    sweep = sweep_variants(recipe, variants)
    added = [variant for variant in sweep if variant.folder]

    assets = [
        *world_asset(recipe, layout),
        *crawl_assets(recipe, layout, recipe.tuning.untranslated),
        *foundation_assets(recipe, layout),
        *benchmark_files_assets(recipe, layout),
        pretraining_plan_asset(recipe, layout),
        *translation_benchmark_assets(recipe, layout),
        pretrained_asset(recipe, layout),
        answers_asset(recipe, layout, (PRETRAINED,), ("answers", PRETRAINED), "benchmark"),
    ]
    for variant in [*variants, *added]:
        group = SWEEP if variant.folder else "training"
        assets += tuning_assets(recipe, layout, variant, group)
        answered = SWEEP if variant.folder else "benchmark"
        model, place = variant.place("finetuned"), variant.place("answers")
        assets.append(answers_asset(recipe, layout, model, place, answered))

    assets += [
        answers_asset(recipe, layout, other, ("answers", name), "benchmark")
        for name, other in recipe.benchmarks.beside.items()
    ]
    pretrained: Place = (PRETRAINED,)
    assets += score_assets(
        recipe,
        layout,
        models={PRETRAINED: pretrained, **_places(variants, "finetuned")},
        mixes=_places(variants, "instruction_mix"),
        answers={
            PRETRAINED: ("answers", PRETRAINED),
            **_places(variants, "answers"),
            **{name: ("answers", name) for name in recipe.benchmarks.beside},
        },
        parameters=ReportParameters(pivot_language=recipe.pivot_language),
    )
    assets += score_assets(
        recipe,
        layout,
        models=_places(sweep, "finetuned"),
        mixes=_places(sweep, "instruction_mix"),
        answers=_places(sweep, "answers"),
        folder=(SWEEP,),
        parameters=ReportParameters(
            title="How much of a language does tuning need to answer in it?",
            pivot_language=recipe.pivot_language,
            shares={variant.name: variant.share for variant in sweep},
        ),
        group=SWEEP,
    )
    assets = with_resources(recipe, assets)
    return Graph(recipe, layout, tuple(assets), layout.key("report"), layout.key(SWEEP, "report"))


def with_resources(
    recipe: Chain, assets: list[StageAsset], needs: Mapping[str, Resources] = MappingProxyType({})
) -> list[StageAsset]:
    """Each asset with what the recipe asks for its stage, or else with the stage's need; and with how its work is done.

    Raises:
        BadInput: the recipe asks something for a stage that it does not have, or that does not fit, or wants one in parts
            that cannot be divided.
    """
    stages = {asset.stage.name.rpartition("/")[2] for asset in assets}
    if unknown := recipe.resources.keys() - stages - {DEFAULT_RESOURCES}:
        raise BadInput(
            f"no stage is called {', '.join(sorted(unknown))}",
            where="recipe: resources",
            remedy=f"name one of: {', '.join([DEFAULT_RESOURCES, *sorted(stages)])}",
        )
    asked = [
        replace(
            asset,
            resources=recipe.resources_of(DEFAULT_RESOURCES if asset.served else asset.stage.name, needs),
        )
        for asset in assets
    ]
    whole = {one.stage.name for one in asked if one.resources.parts > 1 and not one.stage.divisible}
    if whole:
        raise BadInput(
            f"cannot be divided into parts: {', '.join(sorted(whole))}",
            where="recipe: resources: parts",
            remedy="leave `parts` out there; it works for "
            + ", ".join(sorted({one.stage.name for one in asked if one.stage.divisible})),
        )
    return with_execution(recipe, asked)


def sweep_variants(recipe: Recipe, variants: list[Variant]) -> list[Variant]:
    """One variant per share of the sweep; a share that the main chain tunes with is not tuned twice."""
    known = {variant.share: variant for variant in variants}
    return [
        known.get(share) or Variant(share_name(share), share, folder=(SWEEP,))
        for share in sorted(set(recipe.language_share.shares))
    ]


def share_name(share: float) -> str:
    """A share in percent as a name: 0.001 is `share_0_1`."""
    return f"share_{share * 100:g}".replace(".", "_")


def _places(variants: list[Variant], stage: str) -> dict[str, Place]:
    return {variant.name: variant.place(stage) for variant in variants}
