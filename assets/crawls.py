"""The world, and the assets of a crawl, one partition each: from its URL list to training shards."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

import dagster as dg

from assets import checks, drift, translation_benchmarks
from assets.layout import BENCHMARKS, Layout
from assets.partitions import REGISTER_COMMAND, crawl_record, register_crawl
from assets.stage_asset import Finished, StageAsset
from pipelines.conversations import spec as conversations
from pipelines.download import spec as download
from pipelines.errors import BadInput
from pipelines.facts import spec as facts
from pipelines.filter import spec as filtering
from pipelines.lake import location
from pipelines.lake import manifest as manifests
from pipelines.recipe import Chain
from pipelines.score import spec as score
from pipelines.shard import spec as shard
from pipelines.stage import StageSpec
from pipelines.takedown import spec as takedown
from pipelines.translate import spec as translate
from pipelines.world import spec as world

WORLD_KEY = dg.AssetKey("world")
WORLD_MANIFEST = "crawl.yaml"
"""The manifest of the world's first crawl, in the world's table."""


def world_asset(recipe: Chain, layout: Layout) -> list[StageAsset]:
    """The world, whose first crawl it registers; none for a recipe that has no world."""
    if recipe.world is None:
        return []
    parameters = recipe.world

    def register(done: Finished) -> None:
        manifest = manifests.folder(done.table) / WORLD_MANIFEST
        register_crawl(manifest, layout.workspace, done.context.instance)

    return [
        StageAsset(
            key=WORLD_KEY,
            stage=world.STAGE,
            spec=lambda _: world.WorldSpec(output=layout.table("world"), parameters=parameters),
            group="world",
            description=(
                "A small procedural world that stands in for the web: pages with the web's faults, a crawl "
                "of them with its truth kept apart, texts in every language, and benchmarks on held-out "
                "scenes. Registers its crawl as a partition."
            ),
            kinds=frozenset({"python", "parquet"}),
            checks=[checks.checksums(), checks.non_empty()],
            afterwards=register,
        )
    ]


def crawl_assets(recipe: Chain, layout: Layout, untranslated: Collection[str] = ()) -> list[StageAsset]:
    """The tables of a crawl, each from those before it: six of pairs; of conversations four.

    `untranslated`: crawls of conversations in the pivot language that stay in it.
    """
    at = layout.crawl_table
    raw_pairs, clip_scores, pair_facts, filtered_pairs, translations, training_shards = (
        stage.NAME for stage in (download, score, facts, filtering, translate, shard)
    )
    talks = conversations.NAME
    world_key = [WORLD_KEY] if recipe.world is not None else []
    rules = recipe.facts.decontamination
    decontaminates = rules.hash_bits is not None or rules.words is not None
    asked = list(recipe.benchmarks.sources) if decontaminates else []
    gating = translation_benchmarks.gating(recipe)
    translates_with = [layout.key("foundations", "translator"), *(layout.key(*place) for place in gating)]

    def takedown_list() -> Path | None:
        table = layout.table(takedown.NAME)
        return table if manifests.exists(table) else None

    def download_spec(crawl: str) -> StageSpec:
        record = crawl_record(layout.workspace, crawl)
        if not location.is_file(record):
            raise BadInput(
                f"the manifest of the crawl {crawl!r} was not recorded",
                where=record,
                remedy=f"register it: {REGISTER_COMMAND}; a crawl of the world: run the job `world`",
            )
        return download.spec_for(record, recipe.download, at(crawl, raw_pairs), takedown=takedown_list())

    def for_pairs(crawl: str, asset: str) -> None:
        if layout.holds_conversations(crawl):
            raise BadInput(
                f"the crawl {crawl!r} holds conversations, of which there is no table {asset}",
                where=at(crawl, raw_pairs),
                remedy="run the job `ingest_conversations` or `ingest_translated_conversations` for it; "
                "`instruction_mix` reads what these make",
            )

    def scores_of(crawl: str) -> Path | None:
        return None if layout.holds_conversations(crawl) else at(crawl, clip_scores)

    def score_spec(crawl: str) -> StageSpec:
        for_pairs(crawl, clip_scores)
        return score.ScoreSpec(
            output=at(crawl, clip_scores),
            raw_pairs=at(crawl, raw_pairs),
            clip=layout.table("foundations", "clip"),
            parameters=recipe.score,
        )

    def facts_spec(crawl: str) -> StageSpec:
        benchmarks = {name: layout.benchmark_table(name) for name in asked} | recipe.decontamination_tables
        if recipe.world is not None:
            benchmarks["world"] = layout.table("world")
        return facts.FactsSpec(
            output=at(crawl, pair_facts),
            raw_pairs=at(crawl, raw_pairs),
            clip_scores=scores_of(crawl),
            benchmarks=benchmarks if decontaminates else {},
            parameters=recipe.facts,
        )

    def filter_spec(crawl: str) -> StageSpec:
        return filtering.FilterSpec(
            output=at(crawl, filtered_pairs),
            raw_pairs=at(crawl, raw_pairs),
            clip_scores=scores_of(crawl),
            pair_facts=at(crawl, pair_facts),
            takedown=takedown_list(),
            blocked_urls=recipe.screening.blocked_urls,
            blocked_domains=recipe.screening.blocked_domains,
            blocked_images=recipe.screening.blocked_images,
            nsfw_scores=recipe.screening.nsfw_scores,
            parameters=recipe.filter,
        )

    def talks_spec(crawl: str) -> StageSpec:
        layout.check_translated(crawl, recipe.pivot_language, untranslated)
        translation = recipe.translation
        return conversations.ConversationSpec(
            output=at(crawl, talks),
            corpus=at(crawl, raw_pairs),
            filtered=at(crawl, filtered_pairs),
            translator=layout.table("foundations", "translator"),
            test_scores=[layout.table(*place) for place in gating],
            parameters=conversations.ConversationParameters(
                source_language=recipe.pivot_language,
                target_languages=recipe.target_languages,
                # A model that was trained on sentences, as M2M-100, gets them one by one.
                sentences=translation.translator.server is None,
                guard=translation.guard,
                decoding=translation.decoding,
                least_bleu=translation.least_bleu,
            ),
            cache=layout.cache,
            conduct=translation.conduct,
        )

    def translate_spec(crawl: str) -> StageSpec:
        for_pairs(crawl, translations)
        translation = recipe.translation
        return translate.TranslateSpec(
            output=at(crawl, translations),
            raw_pairs=at(crawl, raw_pairs),
            filtered_pairs=at(crawl, filtered_pairs),
            translator=layout.table("foundations", "translator"),
            test_scores=[layout.table(*place) for place in gating],
            parameters=translate.TranslateParameters(
                target_languages=recipe.target_languages,
                guard=translation.guard,
                decoding=translation.decoding,
                least_bleu=translation.least_bleu,
                captions_per_chunk=translation.captions_per_chunk,
            ),
            cache=layout.cache,
            conduct=translation.conduct,
        )

    def shard_spec(crawl: str) -> StageSpec:
        for_pairs(crawl, training_shards)
        return shard.ShardSpec(
            output=at(crawl, training_shards),
            raw_pairs=at(crawl, raw_pairs),
            filtered_pairs=at(crawl, filtered_pairs),
            translations=at(crawl, translations),
            takedown=takedown_list(),
            source=crawl,
            parameters=recipe.shards,
        )

    every_table = [checks.checksums(), checks.ledger_balanced(), checks.non_empty()]
    declared = partial(StageAsset, group="crawls", by_crawl=True)
    return [
        declared(
            key=dg.AssetKey(raw_pairs),
            stage=download.STAGE,
            spec=download_spec,
            upstream=world_key,
            checks=every_table,
            kinds=frozenset({"python", "parquet"}),
            description=(
                "Images with their captions, or with conversations: downloaded by img2dataset behind a guard, or "
                "read from disk."
            ),
        ),
        declared(
            key=dg.AssetKey(clip_scores),
            stage=score.STAGE,
            spec=score_spec,
            upstream=[dg.AssetKey(raw_pairs), layout.key("foundations", "clip")],
            checks=every_table,
            kinds=frozenset({"pytorch", "parquet"}),
            description="How well each image fits its caption: the cosine of their Chinese-CLIP embeddings.",
        ),
        declared(
            key=dg.AssetKey(pair_facts),
            stage=facts.STAGE,
            spec=facts_spec,
            upstream=[
                dg.AssetKey(raw_pairs),
                dg.AssetKey(clip_scores),
                *(world_key if decontaminates else []),
                *(layout.key(BENCHMARKS, name) for name in asked),
            ],
            checks=[checks.checksums(), checks.non_empty()],
            kinds=frozenset({"python", "parquet"}),
            description=(
                "What is known of each pair: its caption's language, length and repetition, near-duplicates of its "
                "image, overlap with benchmarks. The filter decides by it."
            ),
        ),
        declared(
            key=dg.AssetKey(filtered_pairs),
            stage=filtering.STAGE,
            spec=filter_spec,
            upstream=[dg.AssetKey(name) for name in (raw_pairs, clip_scores, pair_facts)],
            checks=[
                *every_table,
                checks.keep_rate(*recipe.limits.keep_rate),
                drift.keep_rate_in_band(layout, recipe.limits.keep_rate_drift),
            ],
            shown=partial(drift.shown, layout, recipe.limits.keep_rate_drift),
            kinds=frozenset({"python", "parquet"}),
            description=(
                f"The pairs that score above {recipe.filter.threshold:g}. A query over the scores: another "
                "threshold costs seconds. Of conversations: those that no rule drops."
            ),
        ),
        declared(
            key=dg.AssetKey(talks),
            stage=conversations.STAGE,
            spec=talks_spec,
            upstream=[dg.AssetKey(raw_pairs), dg.AssetKey(filtered_pairs), *translates_with],
            checks=every_table,
            kinds=frozenset({"python"}),
            description=(
                f"The kept conversations in {', '.join(recipe.target_languages)}, turn by turn; placeholders, option "
                "letters and numbers stay. Only of crawls of conversations in the pivot language."
            ),
        ),
        declared(
            key=dg.AssetKey(translations),
            stage=translate.STAGE,
            spec=translate_spec,
            upstream=[dg.AssetKey(raw_pairs), dg.AssetKey(filtered_pairs), *translates_with],
            checks=every_table,
            kinds=frozenset({"python", "parquet"}),
            description=f"The kept captions in {', '.join(recipe.target_languages)}; bad output is dropped.",
        ),
        declared(
            key=dg.AssetKey(training_shards),
            stage=shard.STAGE,
            spec=shard_spec,
            upstream=[dg.AssetKey(name) for name in (raw_pairs, filtered_pairs, translations)],
            checks=every_table,
            kinds=frozenset({"python", "webdataset"}),
            description="Kept images with all their captions as reproducible webdataset tars with an index.",
        ),
    ]
