"""The translator on published test sets: one asset per set that the recipe names."""

from __future__ import annotations

from assets import checks
from assets.layout import Layout
from assets.stage_asset import StageAsset
from pipelines.recipe import Chain
from pipelines.stage import StageSpec
from pipelines.translation_benchmark import spec as translation_benchmark
from pipelines.translation_benchmark.spec import TestSet


def translation_benchmark_assets(recipe: Chain, layout: Layout) -> list[StageAsset]:
    """BLEU and chrF of the recipe's translator on each of its test sets."""
    return [_asset(recipe, layout, test_set) for test_set in recipe.translation.test_sets]


def places(recipe: Chain) -> dict[str, tuple[str, ...]]:
    """Where the scores on each test set lie; also the ends of their assets' keys."""
    return {_name(one): (translation_benchmark.NAME, _name(one)) for one in recipe.translation.test_sets}


def gating(recipe: Chain) -> list[tuple[str, ...]]:
    """Where the scores lie that `least_bleu` is held against; also the ends of their assets' keys."""
    told = recipe.translation
    return [
        (translation_benchmark.NAME, _name(one))
        for one in told.test_sets
        if one.gates and one.pair in told.least_bleu
    ]


def _name(test_set: TestSet) -> str:
    return f"{test_set.name}_{test_set.pair}".replace("-", "_")


def _asset(recipe: Chain, layout: Layout, test_set: TestSet) -> StageAsset:
    place = (translation_benchmark.NAME, _name(test_set))
    least = recipe.translation.least_bleu.get(test_set.pair)
    gates = [checks.score_above_gate(least)] if test_set.gates and least is not None else []

    def spec(_: str) -> StageSpec:
        return translation_benchmark.TranslationBenchmarkSpec(
            output=layout.table(*place),
            test_set=test_set,
            translator=layout.table("foundations", "translator"),
            guard=recipe.translation.guard,
            cache=layout.cache,
            conduct=recipe.translation.conduct,
        )

    return StageAsset(
        key=layout.key(*place),
        stage=translation_benchmark.STAGE,
        spec=spec,
        group="benchmark",
        upstream=[layout.key("foundations", "translator")],
        checks=[checks.checksums(), checks.non_empty(), *gates],
        kinds=frozenset({"python", "json"}),
        description=f"BLEU of the translator on {test_set.name}, {test_set.pair}, with sacrebleu's signature.",
    )
