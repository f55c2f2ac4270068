"""The crawls of a system: its recipe names them, so each is a fixed part of the graph and no partition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dagster as dg

from assets.crawls import crawl_assets
from assets.layout import Layout
from assets.partitions import record_crawl
from assets.stage_asset import StageAsset
from pipelines.conversations import spec as conversations
from pipelines.crawls import Records, read_manifest
from pipelines.download import spec as download
from pipelines.errors import BadInput
from pipelines.facts import spec as facts
from pipelines.filter import spec as filtering
from pipelines.score import spec as score
from pipelines.shard import spec as shard
from pipelines.stage import StageSpec
from pipelines.systems.chain import CrawlUse, chain, crawl_uses
from pipelines.systems.recipe import System
from pipelines.translate import spec as translate

FOLDER = "crawls"


def pair_crawl_assets(system: System, layout: Layout) -> list[StageAsset]:
    """From each crawl of pairs that pretraining reads to its training shards; translated only where it is read so."""
    by_origin = {native: crawl_assets(chain(system, native=native), layout) for native in (False, True)}
    made = []
    for use in crawl_uses(system.pretraining):
        for asset in by_origin[use.language != system.pivot_language]:
            stage = asset.stage.name
            if stage != conversations.NAME and (use.translated or stage != translate.NAME):
                made.append(_of_crawl(asset, use, system, layout, "pairs"))
    return made


def conversation_crawl_assets(system: System, layout: Layout) -> list[StageAsset]:
    """Each crawl of conversations that tuning reads, filtered, and translated where it is read so."""
    stages = {download.NAME, facts.NAME, filtering.NAME}
    assets = crawl_assets(chain(system), layout)
    return [
        _of_crawl(asset, use, system, layout, "conversations")
        for use in crawl_uses(system.tuning)
        for asset in assets
        if asset.stage.name in stages or (use.translated and asset.stage.name == conversations.NAME)
    ]


def key_of(layout: Layout, use: CrawlUse, table: str) -> dg.AssetKey:
    """The key of a crawl's table in this system."""
    return layout.key(FOLDER, use.identifier, table)


def _of_crawl(
    asset: StageAsset, use: CrawlUse, system: System, layout: Layout, records: Records
) -> StageAsset:
    """An asset of any crawl, for this one: what the recipe says of it besides goes into the spec."""

    def spec(_: str) -> StageSpec:
        if asset.stage.name == download.NAME:
            _record(use, system, layout, records)
        made = asset.spec(use.crawl)
        if isinstance(made, translate.TranslateSpec):
            into = made.parameters.model_copy(update={"target_languages": use.translated})
            return made.model_copy(update={"parameters": into})
        if isinstance(made, conversations.ConversationSpec):
            said = made.parameters.model_copy(
                update={
                    "source_language": use.language, "target_languages": use.translated,
                    "sentences": system.translation.server is None,
                }
            )  # fmt: skip
            return made.model_copy(update={"parameters": said})
        if isinstance(made, shard.ShardSpec) and not use.translated:
            return made.model_copy(update={"translations": None})
        return made

    without = {*(() if use.translated else (translate.NAME,)), *(() if records == "pairs" else (score.NAME,))}
    upstream = [
        key if len(key.path) > 1 else key_of(layout, use, key.path[0])
        for key in asset.upstream
        if key.path[-1] not in without
    ]
    return replace(
        asset, key=key_of(layout, use, asset.stage.name), by_crawl=False, spec=spec, upstream=upstream,
        description=f"{use.crawl}: {asset.description}",
    )  # fmt: skip


def _record(use: CrawlUse, system: System, layout: Layout, records: Records) -> None:
    """Write a crawl's record beside its tables, from the manifest that a person put into the crawls' folder.

    Raises:
        BadInput: names every manifest that the recipe needs and that is not there, or what does not fit in this one.
    """
    folder = system.crawls_folder
    everything = [one for training in system.stages.values() for one in crawl_uses(training)]
    if missing := [one.crawl for one in everything if _manifest(folder, one.crawl) is None]:
        raise BadInput(
            f"the recipe {system.name} reads crawls without a manifest: {', '.join(missing)}",
            where=folder,
            remedy=f"put a file {missing[0]}.yaml there: a copy of recipes/crawls/{missing[0]}.yaml whose `root` is the "
            "folder with its files, or one of your own (docs/crawls.md)",
        )
    path = _manifest(folder, use.crawl)
    assert path is not None  # noqa: S101  # else it would be missing
    manifest = read_manifest(path)
    found = {"crawl": manifest.crawl, "language": manifest.language, "records": manifest.kind}
    wanted = {"crawl": use.crawl, "language": use.language, "records": records}
    if found != wanted:
        differing = [name for name in wanted if found[name] != wanted[name]]
        raise BadInput(
            f"the recipe {system.name} reads a crawl of "
            + ", ".join(f"{name} {wanted[name]!r}, and this is {found[name]!r}" for name in differing),
            where=path,
            remedy=f"correct the manifest, or the source {use.source!r} of the recipe",
        )
    if use.rows is not None:
        manifest = manifest.model_copy(update={"rows": use.rows})
    record_crawl(manifest, layout.workspace)


def _manifest(folder: Path, crawl: str) -> Path | None:
    found = sorted([*folder.glob(f"{crawl}.yaml"), *folder.glob(f"*/{crawl}.yaml")])
    return found[0] if found else None
