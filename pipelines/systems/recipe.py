"""A system's recipe: its architecture, its data and its training stages, in one YAML file, checked whole.

A variation names the file it `extends` and only what differs: mappings are merged key by key, everything else
replaces, and `null` takes a key out. Values of the papers stand in the files as the papers give them; what does
not follow from them is marked there.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from models.architecture import Architecture, Section
from pipelines.benchmarks.plan import Benchmarks
from pipelines.crawls import CRAWL_PATTERN, LANGUAGE_PATTERN
from pipelines.documents import load_document, validated
from pipelines.download.spec import DownloadParameters
from pipelines.errors import BadInput
from pipelines.facts.spec import FactsParameters
from pipelines.filter.spec import FilterParameters
from pipelines.launch.spec import Resources
from pipelines.recipe import EXECUTION, Execution, Limits, Screening
from pipelines.remote.spec import Conduct
from pipelines.score.spec import ScoreParameters
from pipelines.shard.spec import ShardParameters
from pipelines.translate.spec import Decoding, GuardLimits, LeastBleu, RemoteTranslation
from pipelines.translation_benchmark.spec import TestSet

NAME_PATTERN = r"^[a-z][a-z0-9-]{0,59}$"
PROMPTS = {
    "en": [
        "Describe the image.", "What does the picture show?", "Write a caption for this image.",
        "Say briefly what can be seen.", "Sum the picture up in one sentence.",
    ],
    "zh": ["描述这张图片。", "图中有什么？", "为这张图片写一句说明。", "简要说说你看到了什么。", "用一句话概括这张图片。"],
}  # fmt: skip
DEEPEST = 8
"""Most files in a chain of `extends`; more is taken for a circle."""


class Source(Section):
    """Data of one kind in a stage's blend."""

    crawls: list[str] = Field(min_length=1, description="names of crawl manifests (recipes/crawls)")
    samples: int = Field(ge=1, description="pairs or conversations, counted once per language")
    rows: int | None = Field(
        None, ge=1,
        description="take in a slice of so many rows of each crawl, as a manifest's `rows`; none: what the manifest says",
    )  # fmt: skip
    languages: list[str] = Field(
        ["en"], min_length=1, description="of the texts; what is not the crawl's own language is translated"
    )
    crawl_language: str | None = Field(
        None, pattern=LANGUAGE_PATTERN, description="the crawls' own language; none: the first of `languages`"
    )
    weight: float | None = Field(None, gt=0, le=1, description="share of the samples drawn; none: by size")

    @property
    def own_language(self) -> str:
        """The language that the crawls come in."""
        return self.crawl_language or self.languages[0]


class Training(Section):
    """One training stage."""

    sources: dict[str, Source] = Field(min_length=1)
    steps: int | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0, description="instead of steps")
    batch_size: int = Field(gt=0, description="samples per step, over all GPUs")
    per_gpu: int | None = Field(
        None, gt=0,
        description="samples per GPU and pass; none: all of its share at once. Packed rows are computed one at a time instead",
    )  # fmt: skip
    learning_rates: dict[str, float] = Field(
        min_length=1, description="peak rate of each trained part (models.parts); other parts are frozen"
    )
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int | None = Field(None, ge=0)
    warmup_share: float | None = Field(None, ge=0, lt=1, description="of the steps, instead of a number")
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    gradient_clipping: float = Field(1.0, gt=0)
    zero_stage: Literal[0, 1, 2, 3] = 2
    precision: Literal["bf16", "fp32", "auto"] = "bf16"
    gradient_checkpointing: bool = False
    text_tokens: int = Field(
        2048, ge=16, description="longest sample, in tokens, its images' among them; longer ones are left out"
    )
    pack_tokens: int | None = Field(
        None, ge=16, description="most tokens of a row that samples are packed into; none: a sample is a row"
    )
    packs_multiple: int = Field(
        8, ge=1,
        description="packed rows of a step are a multiple of it: the GPUs that shall be equally busy. It is told here, and not "
        "taken from `hardware.gpus`, so that a training goes on on another number of them",
    )  # fmt: skip
    data_workers: int = Field(0, ge=0, description="processes per GPU that read and decode ahead")
    fused_kernels: bool = Field(False, description="Liger's kernels, where they are installed; GPU only")
    compile: bool = Field(False, description="torch.compile for the language model's layers")
    not_finite: Literal["stop", "skip"] = Field(
        "stop", description="what follows a gradient that is no number; a step is never taken with it"
    )
    most_skipped: int = Field(3, ge=1, description="steps skipped in a row that stop the training, too")
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints")
    checkpoints_kept: int = Field(2, ge=1, description="the newest so many stay")
    keep_every: int | None = Field(
        None, ge=1, description="checkpoints at multiples of so many steps stay for good"
    )
    mean_tokens: int = Field(128, ge=1, description="of a sample's text: what the dry run reckons with")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give `steps` or `epochs`")
        if self.warmup_steps is not None and self.warmup_share is not None:
            raise ValueError("give `warmup_steps` or `warmup_share`")
        if self.pack_tokens is not None and self.pack_tokens < self.text_tokens:
            raise ValueError(
                f"a pack of `pack_tokens` {self.pack_tokens} has no room for a sample of `text_tokens` {self.text_tokens}"
            )
        weights = [source.weight for source in self.sources.values()]
        if any(weight is not None for weight in weights):
            if None in weights:
                raise ValueError("give every source a `weight`, or none")
            if not math.isclose(total := sum(filter(None, weights)), 1, abs_tol=1e-6):
                raise ValueError(f"the sources' weights sum to {total:g}, not 1")
        return self

    @property
    def samples(self) -> int:
        """Of all sources together."""
        return sum(source.samples for source in self.sources.values())

    @property
    def total_steps(self) -> int:
        """Steps, from the epochs where these are given."""
        return self.steps or math.ceil((self.epochs or 0) * self.samples / self.batch_size)

    @property
    def warmup(self) -> int:
        """Steps of linear warm-up."""
        if self.warmup_share is not None:
            return math.ceil(self.warmup_share * self.total_steps)
        return self.warmup_steps or 0

    @property
    def mixture(self) -> dict[str, float]:
        """Share of the samples drawn from each source."""
        return {
            name: source.samples / self.samples if source.weight is None else source.weight
            for name, source in self.sources.items()
        }

    def epochs_of(self, name: str) -> float:
        """How often a source's samples are seen."""
        drawn = self.total_steps * self.batch_size * self.mixture[name]
        return drawn / self.sources[name].samples


class PivotGap(Section):
    """What the pivot gap is measured on, where pretraining reads no captions in every language: some that are translated for it."""

    captions: int = Field(
        24, ge=0, description="held out of pretraining; 0: no pivot gap, and no translator for it"
    )
    crawl: str | None = Field(
        None, description="of pretraining, in the pivot language, one caption per image; none: the first"
    )


class Hardware(Section):
    """What a recipe is reckoned for."""

    gpu: str = "A100-80G"
    gpus: int = Field(8, ge=1)
    memory_gb: float = Field(80, gt=0, description="per GPU, in 10^9 bytes")
    peak_tflops: float = Field(312, gt=0, description="per GPU, dense bf16")


class Inference(Section):
    """How the model answers."""

    beams: int = Field(1, ge=1)
    max_new_tokens: int = Field(512, ge=1)
    repetition_penalty: float = Field(1.0, ge=1, description="by which tokens of the answer so far lose")
    length_penalty: float = Field(1.0, description="power of its length that a beam's score is divided by")


class Translation(Section):
    """Who translates captions and instructions."""

    translator: str = Field("facebook/m2m100_418M", description="hub id or path")
    language_model: str | None = Field(
        None,
        description="name of a language model behind an OpenAI-compatible server that translates instead",
    )
    server: RemoteTranslation | None = Field(None, description="that server")
    guard: GuardLimits = GuardLimits()
    decoding: Decoding = Decoding()
    least_bleu: LeastBleu = Field(
        {}, description="by language pair such as en-zh: a translator below it blocks what it would translate"
    )
    test_sets: list[TestSet] = Field(
        [],
        description="parallel files, published or your own, on which the translator is scored; `least_bleu` holds it to them",
    )
    captions_per_chunk: int = Field(50_000, ge=1, description="captions in memory at a time")
    conduct: Conduct = Field(Conduct(), description="how the server is asked")

    @model_validator(mode="after")
    def _gates_are_measured(self) -> Self:
        if unmeasured := sorted(self.least_bleu.keys() - {one.pair for one in self.test_sets}):
            raise ValueError(
                f"`least_bleu` asks for {', '.join(unmeasured)}, which no test set measures: name one in `test_sets`"
            )
        return self


class Filter(FilterParameters):
    """The filter's rules, for all crawls; only the threshold is for native pairs alone.

    Pairs in the pivot language are scored too, and none is dropped for its score.
    """

    clip: str = Field("OFA-Sys/chinese-clip-vit-huge-patch14", description="hub id or path")

    @property
    def rules(self) -> FilterParameters:
        """What the stage is told."""
        return FilterParameters.model_validate(self.model_dump(exclude={"clip"}))


class System(Section):
    """A system to be trained."""

    name: str = Field(pattern=NAME_PATTERN)
    description: str
    paper: str = Field("", description="where its values stand")
    follows: str = Field("", description="paper or published code where they differ, and why")
    pivot_language: str = Field("en", pattern=LANGUAGE_PATTERN)
    target_languages: list[str] = Field(min_length=1)
    architecture: Architecture
    pretraining: Training
    tuning: Training
    pivot_gap: PivotGap = PivotGap()
    hardware: Hardware = Hardware()
    inference: Inference = Inference()
    translation: Translation = Translation()
    filter: Filter = Filter()
    prompts: dict[str, list[str]] = Field(
        PROMPTS, description="requests that a caption answers in pretraining, by language"
    )
    workspace: Path | None = Field(None, description="folder of all tables; none: data/NAME")
    crawls_folder: Path = Field(Path("crawls"), description="holds the manifest of each crawl: CRAWL.yaml")
    download: DownloadParameters = DownloadParameters()
    score: ScoreParameters = ScoreParameters()
    facts: FactsParameters = FactsParameters()
    decontamination_tables: dict[str, Path] = Field(
        {},
        description="benchmark tables, by name, besides those of `benchmarks`; see `facts.decontamination`",
    )
    screening: Screening = Screening()
    limits: Limits = Limits()
    shards: ShardParameters = ShardParameters()
    benchmarks: Benchmarks = Benchmarks()
    resources: dict[str, Resources] = Field(
        {},
        description="what a stage asks of a cluster, by its name; what is not said: pipelines/launch/needs.py",
    )
    execution: Execution = Field({}, description=EXECUTION)
    published: dict[str, dict[str, float]] = Field(
        {}, description="benchmark -> language -> the paper's score, to hold a full run against"
    )

    @model_validator(mode="after")
    def _languages_agree(self) -> Self:
        known = {self.pivot_language, *self.target_languages}
        crawls = [
            crawl
            for stage in self.stages.values()
            for source in stage.sources.values()
            for crawl in source.crawls
        ]
        if twice := sorted({crawl for crawl in crawls if crawls.count(crawl) > 1}):
            raise ValueError(f"these crawls stand in several sources: {', '.join(twice)}")
        self.screening.check(self.filter)
        if any(source.weight is not None for source in self.tuning.sources.values()):
            raise ValueError("tuning blends its sources by size: leave their `weight` out")
        gap, pivots = self.pivot_gap.crawl, self.pivot_crawls
        if gap is not None and pivots and gap not in pivots:
            raise ValueError(
                f"`pivot_gap.crawl` is {gap!r}; pretraining reads {', '.join(pivots)} in {self.pivot_language}"
            )
        captions = {language for source in self.pretraining.sources.values() for language in source.languages}
        if silent := sorted(language for language in captions if not self.prompts.get(language)):
            raise ValueError(f"`prompts` has no request for a caption in {', '.join(silent)}")
        for stage in (self.pretraining, self.tuning):
            for name, source in stage.sources.items():
                if strange := set(source.languages) - known:
                    raise ValueError(
                        f"the source {name!r} is in {sorted(strange)}, the system in {sorted(known)}"
                    )
                for crawl in source.crawls:
                    if not re.match(CRAWL_PATTERN, crawl):
                        raise ValueError(f"the source {name!r} names no crawl: {crawl!r}")
        return self

    @property
    def identifier(self) -> str:
        """The name as Dagster takes it, without hyphens: of the main job, and before all assets."""
        return self.name.replace("-", "_")

    @property
    def folder(self) -> Path:
        """Where all its tables lie."""
        return self.workspace or Path("data") / self.name

    @property
    def pivot_crawls(self) -> list[str]:
        """The crawls in the pivot language that pretraining reads as such."""
        return [
            crawl
            for source in self.pretraining.sources.values()
            if source.own_language == self.pivot_language in source.languages
            for crawl in source.crawls
        ]

    @property
    def stages(self) -> dict[str, Training]:
        """Its training stages, in order."""
        return {"pretraining": self.pretraining, "tuning": self.tuning}


def read_system(path: Path) -> System:
    """The system in a YAML file, with everything it extends.

    Raises:
        BadInput: a file is missing or malformed, a key is wrong or unknown, or files extend each other in a circle.
    """
    return validated(System, extended(path), where=path)


def extended(path: Path) -> dict[str, Any]:
    """The document of a file, put over those of the files it extends."""
    document: dict[str, Any] = {}
    current, over = path, list[dict[str, Any]]()
    for _ in range(DEEPEST):
        part = load_document(current)
        over.append(part)
        base = part.pop("extends", None)
        if base is None:
            for one in reversed(over):
                document = merged(document, one)
            return document
        current = current.parent / str(base)
    raise BadInput(
        f"this recipe extends more than {DEEPEST} others", where=path, remedy="look for a circle in `extends`"
    )


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` put over `base`: mappings key by key; null takes a key out; everything else replaces."""
    result = dict(base)
    for key, value in over.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict) and "model_type" not in value:
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result
