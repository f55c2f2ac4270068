"""The report stage's spec. Every input but the benchmark's is optional: a section without input is left out."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pipelines.crawls import LANGUAGE_PATTERN
from pipelines.stage import InputFile, InputTable, Stage, StageSpec, lazy

NAME = "report"
CODE_VERSION = "8"
PAGE, RESULTS = "index.html", "results.json"
CARDS = "cards"
"""A folder: the card of each model, with its scores."""


class ReportParameters(BaseModel):
    """What the report says beyond what the tables hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field("A bilingual vision-language model, from crawl to score", description="heading")
    recipe: str | None = Field(
        None, pattern=r"^[a-z][a-z0-9_-]*$", description="what the models were made by: stands in their cards"
    )
    pivot_language: str = Field(
        "en", pattern=LANGUAGE_PATTERN, description="the only language of pretraining"
    )
    shares: dict[str, float] = Field(
        {}, description="model -> share of translated instructions in its tuning; draws V's Fig. 5"
    )
    sources: dict[str, str] = Field({}, description="crawl -> its source; draws the drift between its crawls")
    keep_rate_drift: float = Field(0.1, ge=0, le=1, description="as `limits.keep_rate_drift` of the recipe")
    gallery_items: int = Field(12, ge=0, description="held-out images shown with questions and answers")
    browsed_answers: int = Field(
        18, ge=3, description="answers shown per benchmark and language, with what each profile reads in them"
    )
    translation_samples: int = Field(8, ge=0, description="translated captions shown per crawl and language")


class ReportSpec(StageSpec):
    """What `python -m pipelines.report` is told. Keys of the first five are crawls."""

    raw_pairs: dict[str, InputTable] = Field({})
    clip_scores: dict[str, InputTable] = Field({})
    filtered_pairs: dict[str, InputTable] = Field({})
    translations: dict[str, InputTable] = Field({})
    training_shards: dict[str, InputTable] = Field({})
    truth: dict[str, InputFile] = Field({}, description="crawl -> truth.parquet of a crawl of the world")
    foundations: dict[str, InputTable] = Field({}, description="clip, translator, language_model, vision")
    test_sets: dict[str, InputTable] = Field({}, description="the translator's scores on published test sets")
    instruction_mixes: dict[str, InputTable] = Field({}, description="tuning variant -> its mix")
    models: dict[str, InputTable] = Field({}, description="model -> its table; names as in `answers`")
    answers: dict[str, InputTable] = Field({}, description="model -> what it answered")
    scores: InputTable
    benchmarks: dict[str, InputTable] = Field(min_length=1)
    parameters: ReportParameters = ReportParameters()


STAGE = Stage(
    name=NAME,
    module="pipelines.report",
    spec_type=ReportSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.report.run:run"),
    summary="Write the report: one self-contained HTML page, and the same results as JSON.",
    stable_names=(PAGE, RESULTS, CARDS),
)
