"""The graph of a system: from the crawls that its recipe names to its scores."""

from __future__ import annotations

from dataclasses import dataclass

import dagster as dg

from assets.benchmark_files import benchmark_files_assets
from assets.benchmarks import answers_asset, score_assets
from assets.graph import with_resources
from assets.layout import Layout
from assets.stage_asset import StageAsset
from assets.systems.crawls import FOLDER, conversation_crawl_assets, pair_crawl_assets
from assets.systems.foundations import foundation_assets, foundation_names
from assets.systems.training import FINETUNED, MIX, training_assets
from assets.translation_benchmarks import translation_benchmark_assets
from pipelines.launch.needs import needs
from pipelines.report.spec import NAME as REPORT
from pipelines.report.spec import ReportParameters
from pipelines.systems.chain import chain
from pipelines.systems.recipe import System


@dataclass(frozen=True)
class SystemGraph:
    """The assets of a system."""

    system: System
    layout: Layout
    assets: tuple[StageAsset, ...]
    last: dg.AssetKey
    """The report, or the tuned model where the recipe names no benchmark."""

    def of_crawl(self, identifier: str) -> list[StageAsset]:
        """The assets of one crawl, in order."""
        beginning = list(self.layout.key(FOLDER, identifier).path)
        return [asset for asset in self.assets if list(asset.key.path[:-1]) == beginning]


def system_graph(system: System) -> SystemGraph:
    """Declare the assets of a system."""
    layout = Layout(system.folder, system.identifier)
    recipe = chain(system)
    crawls = [*pair_crawl_assets(system, layout), *conversation_crawl_assets(system, layout)]
    assets = [
        *crawls,
        *foundation_assets(system, layout),
        *translation_benchmark_assets(recipe, layout),
        *training_assets(system, layout),
    ]
    last = layout.key(FINETUNED)
    if system.benchmarks.sources:
        last = layout.key(REPORT)
        assets += benchmark_files_assets(recipe, layout)
        assets.append(answers_asset(recipe, layout, (FINETUNED,), ("answers", FINETUNED), "benchmark"))
        beside = system.benchmarks.beside
        assets += [
            answers_asset(recipe, layout, other, ("answers", name), "benchmark")
            for name, other in beside.items()
        ]
        assets += score_assets(
            recipe,
            layout,
            models={FINETUNED: (FINETUNED,)},
            mixes={FINETUNED: (MIX,)},
            answers={name: ("answers", name) for name in (FINETUNED, *beside)},
            parameters=ReportParameters(
                title=f"{system.name}: {system.description}", pivot_language=system.pivot_language
            ),
            foundations=foundation_names(system),
            crawls=[asset.key for asset in crawls],
        )
    return SystemGraph(
        system, layout, tuple(with_resources(recipe, assets, needs(system.hardware.gpus))), last
    )
