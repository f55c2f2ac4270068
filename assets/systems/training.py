"""A system's two training stages, each by a pack plan of the recipe's blend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from assets import checks, translation_benchmarks
from assets.layout import Layout
from assets.stage_asset import StageAsset
from assets.systems.crawls import key_of
from assets.training import PRETRAINED, PRETRAINING_PLAN, plan_asset
from pipelines.conversations.spec import NAME as TRANSLATED
from pipelines.download.spec import NAME as RAW_PAIRS
from pipelines.errors import BadInput
from pipelines.filter.spec import NAME as FILTERED
from pipelines.held_out import spec as held_out
from pipelines.instructions import spec as instructions
from pipelines.lake import manifest as manifests
from pipelines.shard.spec import NAME as TRAINING_SHARDS
from pipelines.stage import StageSpec
from pipelines.systems.chain import (
    CrawlUse,
    captions_in_every_language,
    chain,
    crawl_uses,
    gap_crawl,
    generation,
    mixture,
    optimisation,
)
from pipelines.systems.recipe import System
from pipelines.training import spec as training

MIX, TUNING_PLAN, FINETUNED = "instruction_mix", ("pack_plan", "tuning"), "finetuned"


def training_assets(system: System, layout: Layout) -> list[StageAsset]:
    """Captions for the pivot gap, plan, pretraining, mix, plan, tuning."""
    use = gap_crawl(system)
    return [
        *([held_out_captions(system, layout, use)] if use is not None else []),
        pretraining_plan(system, layout),
        pretrained(system, layout),
        instruction_mix(system, layout),
        tuning_plan(system, layout),
        finetuned(system, layout),
    ]


def _shards(system: System, layout: Layout) -> dict[str, tuple[str, str, Path]]:
    """Name -> source, language and table of everything that pretraining reads: a crawl once per language."""
    found = {}
    for use in crawl_uses(system.pretraining):
        table = layout.crawl_table(use.crawl, TRAINING_SHARDS)
        for language in use.languages:
            name = use.crawl if language == use.language else f"{use.crawl}-{language}"
            found[name] = (use.source, language, table)
    return found


def _captions(system: System, layout: Layout) -> dict[str, object]:
    """What plan and pretraining are told of the captions alike."""
    shards = _shards(system, layout)
    pivot = system.pivot_language
    spoken = {language for _, language, _ in shards.values()}
    return {
        "shards": _there({name: table for name, (_, _, table) in shards.items()}, system),
        "languages": {name: language for name, (_, language, _) in shards.items()},
        "pivot_language": pivot,
        "prompts": system.prompts.get(pivot) or system.prompts[min(spoken)],
        "prompts_of": {language: system.prompts[language] for language in sorted(spoken - {pivot})},
    }


def _there(tables: Mapping[str, Path], system: System) -> dict[str, Path]:
    if missing := sorted({str(table) for table in tables.values() if not manifests.exists(table)}):
        raise BadInput(
            f"these tables were not made yet: {', '.join(missing)}",
            where=f"recipe {system.name}",
            remedy=f"run the job {system.identifier}, which makes them first",
        )
    return dict(tables)


def _shard_keys(system: System, layout: Layout) -> list[dg.AssetKey]:
    return [key_of(layout, use, TRAINING_SHARDS) for use in crawl_uses(system.pretraining)]


def _foundation_keys(layout: Layout) -> list[dg.AssetKey]:
    return [layout.key("foundations", name) for name in ("language_model", "vision")]


def _settings(system: System) -> training.Optimisation:
    return optimisation(system.pretraining, gpus=system.hardware.gpus, mixture=mixture(system.pretraining))


def held_out_captions(system: System, layout: Layout, use: CrawlUse) -> StageAsset:
    """Captions of a crawl that pretraining does not read, translated for the pivot gap."""
    told = system.translation
    gating = translation_benchmarks.gating(chain(system))

    def spec(_: str) -> StageSpec:
        return held_out.HeldOutSpec(
            output=layout.table(held_out.NAME),
            shards=layout.crawl_table(use.crawl, TRAINING_SHARDS),
            translator=layout.table("foundations", "translator"),
            test_scores=[layout.table(*place) for place in gating],
            parameters=held_out.HeldOutParameters(
                captions=system.pivot_gap.captions,
                source_language=system.pivot_language,
                target_languages=system.target_languages,
                guard=told.guard,
                decoding=told.decoding,
                least_bleu=told.least_bleu,
            ),
            cache=layout.cache,
            conduct=told.conduct,
        )

    return StageAsset(
        key=layout.key(held_out.NAME),
        stage=held_out.STAGE,
        spec=spec,
        group="training",
        upstream=[
            key_of(layout, use, TRAINING_SHARDS),
            layout.key("foundations", "translator"),
            *(layout.key(*place) for place in gating),
        ],
        checks=[checks.checksums(), checks.ledger_balanced(), checks.non_empty()],
        kinds=frozenset({"python", "parquet"}),
        description=f"Captions of {use.crawl} in {', '.join(system.target_languages)}, too: kept from training, for the pivot gap.",
    )


def pretraining_plan(system: System, layout: Layout) -> StageAsset:
    """The pack plan of the multimodal pretraining."""
    translated = gap_crawl(system) is not None

    def spec() -> training.PlanSpec:
        return training.PlanSpec(
            output=layout.table(*PRETRAINING_PLAN),
            kind="captions",
            tokenizer=layout.table("foundations", "language_model"),
            vision=layout.table("foundations", "vision"),
            sources={name: source for name, (source, _, _) in _shards(system, layout).items()},
            target_languages=system.target_languages,
            held_out=system.pivot_gap.captions if captions_in_every_language(system) else 0,
            held_out_captions=layout.table(held_out.NAME) if translated else None,
            **_captions(system, layout),
            **training.data_order(_settings(system)),
        )

    upstream = [
        *_shard_keys(system, layout),
        *_foundation_keys(layout),
        *([layout.key(held_out.NAME)] if translated else []),
    ]
    return plan_asset(layout.key(*PRETRAINING_PLAN), spec, upstream, "training", "the multimodal pretraining")


def pretrained(system: System, layout: Layout) -> StageAsset:
    """The multimodal pretraining."""

    def spec(_: str) -> StageSpec:
        return training.PretrainSpec(
            output=layout.table(PRETRAINED),
            language_model=layout.table("foundations", "language_model"),
            vision=layout.table("foundations", "vision"),
            plan=layout.table(*PRETRAINING_PLAN),
            gap_prompts={language: prompts[0] for language, prompts in system.prompts.items()},
            optimisation=_settings(system),
            processes=system.hardware.gpus,
            **_captions(system, layout),
        )

    return StageAsset(
        key=layout.key(PRETRAINED),
        stage=training.PRETRAIN,
        spec=spec,
        group="training",
        upstream=[*_shard_keys(system, layout), *_foundation_keys(layout), layout.key(*PRETRAINING_PLAN)],
        checks=[checks.checksums(), checks.loss_finite()],
        kinds=frozenset({"pytorch", "deepspeed"}),
        description=f"Multimodal pretraining: {', '.join(system.pretraining.learning_rates)} learns captions.",
    )


def instruction_mix(system: System, layout: Layout) -> StageAsset:
    """The conversations of the tuning's crawls, each in the languages that the recipe names."""
    uses = crawl_uses(system.tuning)

    def spec(_: str) -> StageSpec:
        corpora = {use.crawl: layout.crawl_table(use.crawl, RAW_PAIRS) for use in uses}
        filtered = {use.crawl: layout.crawl_table(use.crawl, FILTERED) for use in uses}
        translations = {
            use.crawl: layout.crawl_table(use.crawl, TRANSLATED) for use in uses if use.translated
        }
        return instructions.InstructionSpec(
            output=layout.table(MIX),
            corpora=_there(corpora, system),
            filtered=_there(filtered, system),
            translations=_there(translations, system),
            languages={use.crawl: list(use.languages) for use in uses},
            parameters=instructions.InstructionParameters(
                target_share=0.0,
                pivot_language=system.pivot_language,
                target_languages=system.target_languages,
                samples_per_shard=system.shards.samples_per_shard,
            ),
        )

    return StageAsset(
        key=layout.key(MIX),
        stage=instructions.STAGE,
        spec=spec,
        group="training",
        upstream=[
            *(key_of(layout, use, table) for use in uses for table in (RAW_PAIRS, FILTERED)),
            *(key_of(layout, use, TRANSLATED) for use in uses if use.translated),
        ],
        checks=[checks.checksums(), checks.ledger_balanced(), checks.non_empty()],
        kinds=frozenset({"python", "webdataset"}),
        description=f"Conversations of {', '.join(use.crawl for use in uses)}, in the languages that the recipe names.",
    )


def tuning_plan(system: System, layout: Layout) -> StageAsset:
    """The pack plan of the tuning."""

    def spec() -> training.PlanSpec:
        return training.PlanSpec(
            output=layout.table(*TUNING_PLAN),
            kind="conversations",
            tokenizer=layout.table(PRETRAINED),
            shards={training.INSTRUCTIONS: layout.table(MIX)},
            **training.data_order(optimisation(system.tuning, gpus=system.hardware.gpus)),
        )

    upstream = [layout.key(PRETRAINED), layout.key(MIX)]
    return plan_asset(layout.key(*TUNING_PLAN), spec, upstream, "training", "the tuning")


def finetuned(system: System, layout: Layout) -> StageAsset:
    """The instruction tuning."""
    measures_gap = bool(system.pivot_gap.captions) and (
        captions_in_every_language(system) or gap_crawl(system) is not None
    )

    def spec(_: str) -> StageSpec:
        return training.FinetuneSpec(
            output=layout.table(FINETUNED),
            pretrained=layout.table(PRETRAINED),
            instructions=layout.table(MIX),
            lora=system.architecture.language_model.lora,
            generation=generation(system),
            plan=layout.table(*TUNING_PLAN),
            held_out=layout.table(*PRETRAINING_PLAN) if measures_gap else None,
            pivot_language=system.pivot_language,
            gap_prompts={language: prompts[0] for language, prompts in system.prompts.items()},
            optimisation=optimisation(system.tuning, gpus=system.hardware.gpus),
            processes=system.hardware.gpus,
        )

    return StageAsset(
        key=layout.key(FINETUNED),
        stage=training.FINETUNE,
        spec=spec,
        group="training",
        upstream=[
            layout.key(PRETRAINED),
            layout.key(MIX),
            layout.key(*TUNING_PLAN),
            *([layout.key(*PRETRAINING_PLAN)] if measures_gap else []),
        ],
        checks=[checks.checksums(), checks.loss_finite()],
        kinds=frozenset({"pytorch", "deepspeed"}),
        description=f"Instruction tuning: {', '.join(system.tuning.learning_rates)} learns answers.",
    )
