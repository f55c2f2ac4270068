"""The foundations: the models that the chain starts from, made here from the world's texts and pictures."""

from __future__ import annotations

from functools import partial

from assets import checks
from assets.crawls import WORLD_KEY
from assets.layout import Layout
from assets.stage_asset import StageAsset
from pipelines.foundations.clip import spec as clip
from pipelines.foundations.language_model import spec as language_model
from pipelines.foundations.translator import spec as translator
from pipelines.foundations.vision import spec as vision
from pipelines.recipe import Recipe
from pipelines.stage import StageSpec

FOUNDATIONS = ("clip", "translator", "language_model", "vision")


def foundation_assets(recipe: Recipe, layout: Layout) -> list[StageAsset]:
    """Chinese-CLIP, the translator, the bilingual language model and the visual module."""
    world = layout.table("world")

    def clip_spec(_: str) -> StageSpec:
        return clip.ClipSpec(
            output=layout.table("foundations", "clip"),
            world=world if recipe.clip.weights is None else None,
            parameters=recipe.clip,
        )

    def translator_spec(_: str) -> translator.TranslatorSpec:
        languages = {"pivot_language": recipe.pivot_language, "target_languages": recipe.target_languages}
        return translator.TranslatorSpec(
            output=layout.table("foundations", "translator"),
            world=world,
            parameters=recipe.translation.translator.model_copy(update=languages),
            cache=layout.cache,
            conduct=recipe.translation.conduct,
        )

    def language_model_spec(_: str) -> StageSpec:
        return language_model.LanguageModelSpec(
            output=layout.table("foundations", "language_model"),
            world=world,
            shape=recipe.language_model.shape,
            optimisation=recipe.language_model.optimisation,
            processes=recipe.processes,
        )

    def vision_spec(_: str) -> StageSpec:
        return vision.VisionSpec(
            output=layout.table("foundations", "vision"),
            language_model=layout.table("foundations", "language_model"),
            world=world,
            language=recipe.pivot_language,
            shape=recipe.vision.shape,
            training=recipe.vision.training,
        )

    translator_parameters = translator_spec("").parameters
    trains_translator = translator_parameters.weights is None and bool(translator_parameters.local_languages)
    gates = recipe.translation.least_bleu
    elsewhere = {one.pair for one in recipe.translation.test_sets if one.gates}
    bleu_gates = [checks.bleu_above_gate(recipe.pivot_language, gates, elsewhere)] if gates else []
    declared = partial(StageAsset, group="foundations", kinds=frozenset({"pytorch", "huggingface"}))
    from_world = [WORLD_KEY] if recipe.world is not None else []
    return [
        declared(
            key=layout.key("foundations", "clip"),
            stage=clip.STAGE,
            spec=clip_spec,
            upstream=from_world,
            checks=[checks.checksums(), *([checks.loss_finite()] if recipe.clip.weights is None else [])],
            description="Chinese-CLIP, which scores how well a caption fits its image.",
        ),
        declared(
            key=layout.key("foundations", "translator"),
            stage=translator.STAGE,
            spec=translator_spec,
            upstream=from_world,
            checks=[
                checks.checksums(),
                *([checks.loss_finite()] if trains_translator else []),
                *bleu_gates,
            ],
            description="M2M-100 as a CTranslate2 model, or a language model behind a server, with its BLEU on held-out sentences.",
        ),
        declared(
            key=layout.key("foundations", "language_model"),
            stage=language_model.STAGE,
            spec=language_model_spec,
            upstream=from_world,
            checks=[checks.checksums(), checks.loss_finite()],
            description="The bilingual language model (Qwen2 architecture), trained on text only.",
        ),
        declared(
            key=layout.key("foundations", "vision"),
            stage=vision.STAGE,
            spec=vision_spec,
            upstream=[layout.key("foundations", "language_model"), *from_world],
            checks=[checks.checksums()],
            description="The visual module: an image encoder with query tokens, trained on English alone, and a bridge.",
        ),
    ]
