"""Training: the visual module on captions in one language, then the whole on a blend of instructions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from assets import checks, translation_benchmarks
from assets.crawls import WORLD_KEY
from assets.layout import Layout
from assets.stage_asset import StageAsset
from pipelines.conversations.spec import NAME as TRANSLATED
from pipelines.errors import BadInput
from pipelines.filter.spec import NAME as FILTERED
from pipelines.instructions import spec as instructions
from pipelines.recipe import Recipe
from pipelines.shard.spec import NAME as TRAINING_SHARDS
from pipelines.stage import StageSpec
from pipelines.training import spec as training

PRETRAINED = "pretrained"
PRETRAINING_PLAN = ("pack_plan", "pretraining")


@dataclass(frozen=True)
class Variant:
    """One way of tuning: a share of translated instructions."""

    name: str
    share: float
    folder: tuple[str, ...] = ()
    """Where its tables lie, and what comes before its name in its keys: () or a sweep's name."""

    def place(self, stage: str) -> tuple[str, ...]:
        return (*self.folder, stage, self.name)


def plan_asset(
    key: dg.AssetKey, spec: Callable[[], training.PlanSpec], upstream: list[dg.AssetKey], group: str, of: str
) -> StageAsset:
    """The pack plan of a training: looked at before anything is spent, and what makes a resume exact."""
    return StageAsset(
        key=key,
        stage=training.PLAN,
        spec=lambda _: spec(),
        group=group,
        upstream=upstream,
        checks=[checks.checksums(), checks.ledger_balanced(), checks.non_empty()],
        kinds=frozenset({"python", "arrow"}),
        description=f"Which samples are in which pack of which step of {of}: a function of the step, for any number of ranks.",
    )


def pretraining_plan_asset(recipe: Recipe, layout: Layout) -> StageAsset:
    """The pack plan of the multimodal pretraining, and the captions that it holds out."""

    def spec() -> training.PlanSpec:
        return training.PlanSpec(
            output=layout.table(*PRETRAINING_PLAN),
            kind="captions",
            tokenizer=layout.table("foundations", "language_model"),
            vision=layout.table("foundations", "vision"),
            shards=_shards(recipe, layout),
            pivot_language=recipe.pivot_language,
            target_languages=recipe.target_languages,
            prompts=recipe.pretraining.prompts,
            held_out=recipe.pretraining.held_out,
            **training.data_order(recipe.pretraining.optimisation),
        )

    upstream = [
        dg.AssetKey(TRAINING_SHARDS),
        layout.key("foundations", "language_model"),
        layout.key("foundations", "vision"),
    ]
    return plan_asset(layout.key(*PRETRAINING_PLAN), spec, upstream, "training", "the multimodal pretraining")


def _shards(recipe: Recipe, layout: Layout) -> dict[str, Path]:
    shards = layout.crawls_with(TRAINING_SHARDS)
    if not shards:
        raise BadInput(
            "no crawl has training shards yet",
            where=layout.workspace / "crawls",
            remedy=f"run the job {recipe.name!r}, or `ingest` for a crawl of your own",
        )
    return shards


def pretrained_asset(recipe: Recipe, layout: Layout) -> StageAsset:
    """The multimodal pretraining on every crawl that has training shards."""

    def spec(_: str) -> StageSpec:
        return training.PretrainSpec(
            output=layout.table(PRETRAINED),
            language_model=layout.table("foundations", "language_model"),
            vision=layout.table("foundations", "vision"),
            shards=_shards(recipe, layout),
            plan=layout.table(*PRETRAINING_PLAN),
            pivot_language=recipe.pivot_language,
            prompts=recipe.pretraining.prompts,
            gap_prompts=recipe.pretraining.gap_prompts,
            optimisation=recipe.pretraining.optimisation,
            processes=recipe.processes,
        )

    return StageAsset(
        key=layout.key(PRETRAINED),
        stage=training.PRETRAIN,
        spec=spec,
        group="training",
        upstream=[
            dg.AssetKey(TRAINING_SHARDS),
            layout.key("foundations", "language_model"),
            layout.key("foundations", "vision"),
            layout.key(*PRETRAINING_PLAN),
        ],
        checks=[checks.checksums(), checks.loss_finite()],
        kinds=frozenset({"pytorch", "deepspeed"}),
        description=(
            f"Multimodal pretraining on captions in {recipe.pivot_language} only; the language model is frozen. "
            "Reads the training shards of every crawl, and keeps the version of each in its manifest."
        ),
    )


def tuning_assets(recipe: Recipe, layout: Layout, variant: Variant, group: str) -> list[StageAsset]:
    """The instruction mix of a variant, and the model that is tuned on it."""
    translator = layout.table("foundations", "translator")
    gating = translation_benchmarks.gating(recipe)

    def mix_spec(_: str) -> StageSpec:
        languages = recipe.languages if variant.share > 0 else [recipe.pivot_language]
        corpora = layout.conversation_crawls(languages)
        to_translate = [
            crawl
            for crawl in corpora
            if layout.language(crawl) == recipe.pivot_language and crawl not in recipe.tuning.untranslated
        ]
        return instructions.InstructionSpec(
            output=layout.table(*variant.place("instruction_mix")),
            world=layout.table("world") if recipe.world is not None or not corpora else None,
            corpora=corpora,
            filtered={crawl: layout.made(crawl, FILTERED, "ingest_conversations") for crawl in corpora},
            translations={
                crawl: layout.made(crawl, TRANSLATED, "ingest_translated_conversations")
                for crawl in (to_translate if variant.share > 0 else [])
            },
            translator=translator if variant.share > 0 else None,
            test_scores=[layout.table(*place) for place in gating] if variant.share > 0 else [],
            parameters=instructions.InstructionParameters(
                target_share=variant.share,
                pivot_language=recipe.pivot_language,
                target_languages=recipe.target_languages,
                guard=recipe.translation.guard,
                decoding=recipe.translation.decoding,
                least_bleu=recipe.translation.least_bleu,
                samples_per_shard=recipe.tuning.samples_per_shard,
            ),
            cache=layout.cache,
            conduct=recipe.translation.conduct,
        )

    def plan_spec() -> training.PlanSpec:
        return training.PlanSpec(
            output=layout.table(*variant.place("pack_plan")),
            kind="conversations",
            tokenizer=layout.table(PRETRAINED),
            shards={training.INSTRUCTIONS: layout.table(*variant.place("instruction_mix"))},
            **training.data_order(recipe.tuning.optimisation),
        )

    def tuning_spec(_: str) -> StageSpec:
        return training.FinetuneSpec(
            output=layout.table(*variant.place("finetuned")),
            pretrained=layout.table(PRETRAINED),
            instructions=layout.table(*variant.place("instruction_mix")),
            plan=layout.table(*variant.place("pack_plan")),
            held_out=layout.table(*PRETRAINING_PLAN),
            pivot_language=recipe.pivot_language,
            gap_prompts={
                recipe.pivot_language: recipe.pretraining.prompts[0],
                **recipe.pretraining.gap_prompts,
            },
            optimisation=recipe.tuning.optimisation,
            processes=recipe.processes,
        )

    targets = ", ".join(recipe.target_languages)
    # Where the recipe has a world, its crawl of pairs stands in the main job, and conversations are others' runs.
    from_crawls = [dg.AssetKey(name) for name in (FILTERED, TRANSLATED)] if recipe.world is None else []
    translates_with = [layout.key("foundations", "translator"), *(layout.key(*place) for place in gating)]
    from_translator = translates_with if variant.share > 0 else []
    return [
        StageAsset(
            key=layout.key(*variant.place("instruction_mix")),
            stage=instructions.STAGE,
            spec=mix_spec,
            group=group,
            upstream=[
                *([WORLD_KEY] if recipe.world is not None else []),
                *from_crawls,
                *from_translator,
            ],
            checks=[checks.checksums(), checks.ledger_balanced(), checks.non_empty()],
            kinds=frozenset({"python", "webdataset"}),
            description=f"Instructions, {variant.share:.1%} of them translated into {targets}.",
        ),
        plan_asset(
            layout.key(*variant.place("pack_plan")),
            plan_spec,
            [layout.key(PRETRAINED), layout.key(*variant.place("instruction_mix"))],
            group,
            f"the tuning {variant.name}",
        ),
        StageAsset(
            key=layout.key(*variant.place("finetuned")),
            stage=training.FINETUNE,
            spec=tuning_spec,
            group=group,
            upstream=[
                layout.key(PRETRAINED),
                layout.key(*variant.place("instruction_mix")),
                layout.key(*variant.place("pack_plan")),
                layout.key(*PRETRAINING_PLAN),
            ],
            checks=[checks.checksums(), checks.loss_finite()],
            kinds=frozenset({"pytorch", "deepspeed"}),
            description=f"The model tuned on instructions of which {variant.share:.1%} are in {targets}.",
        ),
    ]
