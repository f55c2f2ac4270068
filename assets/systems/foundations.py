"""What a system starts from: its published language model and visual module, the filter's CLIP, and a translator."""

from __future__ import annotations

from functools import partial
from typing import Literal

from assets import checks
from assets.layout import Layout
from assets.stage_asset import StageAsset
from pipelines.foundations.clip import spec as clip
from pipelines.foundations.published import spec as published
from pipelines.foundations.translator import spec as translator
from pipelines.stage import StageSpec
from pipelines.systems.chain import chain, translated_languages
from pipelines.systems.chain import translator as translator_parameters
from pipelines.systems.recipe import System


def foundation_names(system: System) -> list[str]:
    """Its foundations; a translator only where something is translated."""
    return ["clip", *(["translator"] if translated_languages(system) else []), "language_model", "vision"]


def foundation_assets(system: System, layout: Layout) -> list[StageAsset]:
    """The assets of these."""

    def part_spec(part: Literal["language_model", "visual"], name: str) -> StageSpec:
        return published.PublishedSpec(
            output=layout.table("foundations", name), part=part, architecture=system.architecture
        )

    def clip_spec(_: str) -> StageSpec:
        return clip.ClipSpec(output=layout.table("foundations", "clip"), parameters=chain(system).clip)

    def translator_spec(_: str) -> StageSpec:
        return translator.TranslatorSpec(
            output=layout.table("foundations", "translator"),
            parameters=translator_parameters(system),
            cache=layout.cache,
            conduct=system.translation.conduct,
        )

    declared = partial(
        StageAsset, group="foundations", kinds=frozenset({"pytorch", "huggingface"}), checks=[checks.checksums()]
    )  # fmt: skip
    made = {
        "clip": declared(
            key=layout.key("foundations", "clip"),
            stage=clip.STAGE,
            spec=clip_spec,
            description=f"{system.filter.clip}, which scores how well a caption fits its image.",
        ),
        "translator": declared(
            key=layout.key("foundations", "translator"),
            stage=translator.STAGE,
            spec=translator_spec,
            description=f"What translates into {', '.join(translated_languages(system))}.",
        ),
        "language_model": declared(
            key=layout.key("foundations", "language_model"),
            stage=published.STAGE,
            spec=lambda _: part_spec("language_model", "language_model"),
            description="The published language model, in the layout that training reads.",
        ),
        "vision": declared(
            key=layout.key("foundations", "vision"),
            stage=published.STAGE,
            spec=lambda _: part_spec("visual", "vision"),
            description="The visual module: the published encoder, and a new bridge.",
        ),
    }
    return [made[name] for name in foundation_names(system)]
