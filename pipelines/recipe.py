"""A recipe: the one YAML file that a person edits, checked whole before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.benchmarks.plan import Benchmarks
from pipelines.crawls import LANGUAGE_PATTERN
from pipelines.documents import load_document, validated
from pipelines.download.spec import DownloadParameters
from pipelines.facts.spec import FactsParameters
from pipelines.filter.spec import FilterParameters
from pipelines.foundations.clip.spec import ClipParameters
from pipelines.foundations.language_model.spec import SmallLanguageModel
from pipelines.foundations.translator.spec import TranslatorParameters
from pipelines.foundations.vision.spec import VisionParameters
from pipelines.launch.spec import Resources
from pipelines.remote.spec import Conduct
from pipelines.score.spec import ScoreParameters
from pipelines.shard.spec import ShardParameters
from pipelines.training.spec import Optimisation
from pipelines.translate.spec import Decoding, GuardLimits, LeastBleu
from pipelines.translation_benchmark.spec import TestSet
from pipelines.world.spec import WorldParameters

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,39}$"


DEFAULT_RESOURCES = "default"
Execution = dict[str, dict[str, bool | int | float | str]]
EXECUTION = (
    "how a stage's work is done, by the stage's name, such as {raw_pairs: {workers: 8}}: what changes no result, and stands "
    "in the stage's spec as such"
)


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, so that a misspelt one is not silently a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Translation(Section):
    """Machine translation of captions and instructions, and the guard that its outputs must pass."""

    translator: TranslatorParameters = TranslatorParameters()
    guard: GuardLimits = GuardLimits()
    decoding: Decoding = Decoding()
    least_bleu: LeastBleu = Field(
        {}, description="by language pair such as en-zh: a translator below it blocks what it would translate"
    )
    conduct: Conduct = Field(Conduct(), description="how a server is asked, where one translates")
    test_sets: list[TestSet] = Field(
        [],
        description="parallel files, published such as WMT17 or your own, on which the translator is scored; "
        "`least_bleu` holds it to them",
    )
    captions_per_chunk: int = Field(2000, ge=1)


class LanguageModel(Section):
    """The bilingual language model: made here, trained on text only."""

    shape: SmallLanguageModel = SmallLanguageModel()
    optimisation: Optimisation


class Pretraining(Section):
    """Multimodal pretraining on captions in the pivot language; the language model is frozen."""

    prompts: list[str] = Field(min_length=1, description="requests that a caption answers")
    optimisation: Optimisation
    held_out: int = Field(
        24, ge=0, description="captions kept from training, on which the pivot gap is measured while it runs"
    )
    gap_prompts: dict[str, str] = Field(
        {}, description="a request for a caption in a target language; without one, the first of `prompts`"
    )


class Tuning(Section):
    """Bilingual instruction tuning, once per variant."""

    variants: dict[str, float] = Field(
        min_length=1, description="name -> share of the instructions that is in the target languages"
    )
    optimisation: Optimisation
    samples_per_shard: int = Field(1000, ge=1)
    untranslated: list[str] = Field(
        [],
        description="crawls of conversations in the pivot language that stay in it, as M3IT does in the MpM paper",
    )


class LanguageShare(Section):
    """The sweep of the MpM paper's Fig. 5: how much of the target language does tuning need?"""

    shares: list[float] = [0.0, 0.001, 0.01, 0.1, 0.25, 0.5]


class Limits(Section):
    """What blocks a run: a crawl that keeps more or less than this is looked at by a person first."""

    keep_rate: tuple[float, float] = Field(
        (0.01, 0.999), description="least and most share that the filter keeps"
    )
    keep_rate_drift: float = Field(
        0.1,
        ge=0,
        le=1,
        description="how far it may lie from that of earlier crawls of a source; beyond warns",
    )


class Screening(Section):
    """What people outside know of URLs, domains and images; see `pipelines/filter/spec.py` for the files' form."""

    blocked_urls: list[Path] = []
    blocked_domains: list[Path] = []
    blocked_images: list[Path] = []
    nsfw_scores: list[Path] = Field([], description="take effect with `filter.most_nsfw`, and only so")

    def check(self, rules: FilterParameters) -> None:
        """Refuse what would be read and change nothing, or could not be read.

        Raises:
            ValueError: scores are named and no rule asks for them, or the other way round.
        """
        if rules.most_nsfw is None:
            for name, given in (
                ("screening.nsfw_scores", bool(self.nsfw_scores)),
                ("filter.without_nsfw_score", rules.without_nsfw_score == "drop"),
            ):
                if given:
                    raise ValueError(
                        f"`{name}` drops nothing without `filter.most_nsfw`: set it, such as 0.5"
                    )
        elif not self.nsfw_scores:
            raise ValueError("`filter.most_nsfw` needs files in `screening.nsfw_scores`, and none is named")


class Chain(Section):
    """What every chain from crawls to scores has, whatever model is trained in it."""

    name: str = Field(pattern=NAME_PATTERN, description="also the name of the main job")
    description: str = ""
    workspace: Path = Field(description="folder of all tables of this recipe")
    crawls_folder: Path = Field(Path("crawls"), description="where new crawl manifests are looked for")
    pivot_language: str = Field("en", pattern=LANGUAGE_PATTERN)
    target_languages: list[str] = Field(["zh"], min_length=1)
    processes: int = Field(2, ge=1, description="ranks of a training")
    world: WorldParameters | None = Field(
        None, description="the procedural world, where it stands in for the web"
    )
    download: DownloadParameters = DownloadParameters()
    clip: ClipParameters = ClipParameters()
    score: ScoreParameters = ScoreParameters()
    facts: FactsParameters = FactsParameters()
    decontamination_tables: dict[str, Path] = Field(
        {}, description="benchmark tables, by name, besides the world's; see `facts.decontamination`"
    )
    screening: Screening = Screening()
    filter: FilterParameters = FilterParameters()
    limits: Limits = Limits()
    translation: Translation = Translation()
    shards: ShardParameters = ShardParameters()
    benchmarks: Benchmarks = Benchmarks()
    resources: dict[str, Resources] = Field(
        {}, description="what a stage asks of a cluster, by the stage's name; `default` for the others"
    )
    execution: Execution = Field({}, description=EXECUTION)

    def resources_of(self, stage: str, needs: Mapping[str, Resources]) -> Resources:
        """What a stage asks of a cluster: as the recipe says of it, else its need, else what is the default of the two."""
        name = stage.rpartition("/")[2]
        for key in (name, DEFAULT_RESOURCES):
            for told in (self.resources, needs):
                if key in told:
                    return told[key]
        return Resources()

    @property
    def languages(self) -> list[str]:
        return [self.pivot_language, *self.target_languages]

    @model_validator(mode="after")
    def _languages_agree(self) -> Self:
        self.screening.check(self.filter)
        if self.pivot_language in self.target_languages:
            raise ValueError(f"the pivot language {self.pivot_language!r} cannot be a target language too")
        if self.world is not None and (missing := set(self.languages) - set(self.world.languages)):
            raise ValueError(f"world.languages lacks {', '.join(sorted(missing))}")
        return self


class Recipe(Chain):
    """From a crawl to a scored model, all of whose parts are made here."""

    language_model: LanguageModel
    vision: VisionParameters = VisionParameters()
    pretraining: Pretraining
    tuning: Tuning
    language_share: LanguageShare = LanguageShare()


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file.

    Raises:
        BadInput: the file is missing or malformed; the message names each wrong or unknown key.
    """
    return validated(Recipe, load_document(path), where=path)
