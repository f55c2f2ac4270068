"""The spec of the translation stage: which pairs, into which languages, and what the guard lets pass."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipelines.crawls import LANGUAGE_PATTERN
from pipelines.stage import Execution, InputTable, Stage, StageSpec, lazy

NAME = "translations"
CODE_VERSION = "1"
DROPPED_FILE = "dropped.parquet"
"""Stands in the table beside the languages' files."""

Language = Annotated[str, Field(pattern=LANGUAGE_PATTERN)]


class GuardLimits(BaseModel):
    """What a translation must keep to. Lengths are bytes of UTF-8, which differ less between scripts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    most_repetitions: int = Field(
        3,
        ge=1,
        description="times that a phrase may stand in direct succession, unless the source does so too",
    )
    least_length_ratio: float = Field(0.25, ge=0, description="length of the output / length of the source")
    most_length_ratio: float = Field(4.0, gt=0, description="length of the output / length of the source")
    length_slack: int = Field(
        12, ge=0, description="bytes by which the ratio may be missed: one word is no sentence"
    )
    least_script_share: float = Field(
        0.5, ge=0, le=1, description="share of the output's letters in the target language's script"
    )


class Decoding(BaseModel):
    """How the model searches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    beam_size: int = Field(1, ge=1, description="1 is greedy")
    max_batch_tokens: int = Field(4096, ge=1, description="padded source tokens per batch")
    max_output_tokens: int = Field(256, ge=1, description="an output that is not done by then is cut off")


class TranslateParameters(BaseModel):
    """The `translate` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_languages: list[Language] = Field(["zh"], min_length=1, description="languages to translate into")
    guard: GuardLimits = GuardLimits()
    decoding: Decoding = Decoding()
    captions_per_chunk: int = Field(
        50_000, ge=1, description="captions that are held in memory, and lost at most when the run is killed"
    )


class TranslateSpec(StageSpec):
    """Translate the captions of a crawl's kept pairs."""

    raw_pairs: InputTable = Field(description="where the captions stand")
    filtered_pairs: InputTable = Field(description="which pairs were kept")
    translator: InputTable = Field(description="the table foundations/translator")
    parameters: TranslateParameters = TranslateParameters()
    device: Annotated[Literal["cpu", "cuda"], Execution] = "cpu"
    threads: Annotated[int, Execution] = Field(2, ge=1, description="CPU threads")


STAGE = Stage(
    name=NAME,
    module="pipelines.translate",
    spec_type=TranslateSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.translate.captions:run"),
    summary="Translate the captions of the kept pairs into the target languages, guarded.",
    resumable=True,
)
