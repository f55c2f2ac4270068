"""The benchmarks' published files as assets, and which tables a recipe's models are asked from."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from assets import checks
from assets.crawls import WORLD_KEY
from assets.layout import BENCHMARKS, Layout
from assets.stage_asset import StageAsset
from pipelines.benchmark_files import spec as benchmark_files
from pipelines.benchmark_files.spec import Published
from pipelines.benchmarks.plan import Source
from pipelines.errors import BadInput
from pipelines.recipe import Chain
from pipelines.stage import StageSpec


def benchmark_files_assets(recipe: Chain, layout: Layout) -> list[StageAsset]:
    """One asset per benchmark that the recipe names files of."""
    return [_asset(recipe, layout, name, source) for name, source in recipe.benchmarks.sources.items()]


def _asset(recipe: Chain, layout: Layout, name: str, source: Source) -> StageAsset:
    translator = ("foundations", "translator")
    held = [checks.checksums(), checks.ledger_balanced(), checks.non_empty()]
    if source.translate_into:
        held.append(checks.left_in_english(recipe.benchmarks.most_left_in_english))

    def spec(_: str) -> StageSpec:
        return benchmark_files.BenchmarkFilesSpec(
            output=layout.benchmark_table(name),
            benchmark=name,
            files={file: where for file, where in source.files.items() if isinstance(where, Path)},
            urls={file: where for file, where in source.files.items() if isinstance(where, Published)},
            images=source.images,
            translate_into=source.translate_into,
            translator=layout.table(*translator) if source.translate_into else None,
            guard=recipe.translation.guard,
            decoding=recipe.translation.decoding,
            cache=layout.cache,
            conduct=recipe.translation.conduct,
        )

    return StageAsset(
        key=layout.key(BENCHMARKS, name),
        stage=benchmark_files.STAGE,
        spec=spec,
        group="benchmark",
        upstream=[layout.key(*translator)] if source.translate_into else [],
        checks=held,
        kinds=frozenset({"python"}),
        description=f"The published files of the benchmark {name}: fetched once, and held to what came first.",
    )


def tables(recipe: Chain, layout: Layout) -> dict[str, Path]:
    """The tables whose benchmarks are asked, by name.

    Raises:
        BadInput: the recipe has neither a world nor a benchmark's files.
    """
    found = {name: layout.benchmark_table(name) for name in recipe.benchmarks.sources}
    if recipe.world is not None:
        found["world"] = layout.table("world")
    if not found:
        raise BadInput(
            "the recipe names no benchmark",
            where="benchmarks.sources",
            remedy="name the files of at least one, as docs/benchmarks tells",
        )
    return found


def keys(recipe: Chain, layout: Layout) -> list[dg.AssetKey]:
    """The assets of these tables."""
    world = [WORLD_KEY] if recipe.world is not None else []
    return [*world, *(layout.key(BENCHMARKS, name) for name in recipe.benchmarks.sources)]


def languages(recipe: Chain) -> list[str]:
    """The languages to ask in: the recipe's, and those of the published files."""
    found = dict.fromkeys(recipe.languages) if recipe.world is not None else {}
    for source in recipe.benchmarks.sources.values():
        found |= dict.fromkeys(Path(name).stem.rpartition("_")[2] for name in source.files)
        found |= dict.fromkeys(source.translate_into)
    return list(found)
