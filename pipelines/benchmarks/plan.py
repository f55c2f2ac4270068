"""The `benchmarks` section of a recipe: what is asked, whom, and how it is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.answer.spec import AnswerParameters
from pipelines.benchmark_files.spec import Published
from pipelines.judge.spec import Judge
from pipelines.remote.spec import Conduct, Server
from pipelines.score_answers.spec import ScoreParameters

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,39}$"


class Section(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Section):
    """Where a benchmark's published files are had."""

    files: dict[str, Path | Published] = Field(
        min_length=1, description="name, such as mmmb_en.tsv -> a path, or {url, sha256}"
    )
    images: Path | None = Field(None, description="folder with the images that the files name")
    translate_into: list[str] = Field([], description="further languages, by the recipe's own translator")


class OtherModel(Section):
    """A model that is scored beside the recipe's own."""

    model: Path | None = Field(
        None,
        description="a table with a model of this project: of another recipe, or a published one brought in",
    )
    transformers_model: Path | None = Field(None, description="a folder as transformers saves it")
    server: Server | None = Field(None, description="an OpenAI-compatible server")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(one is not None for one in (self.model, self.transformers_model, self.server)) != 1:
            raise ValueError("give one of `model`, `transformers_model` and `server`")
        return self


class Benchmarks(Section):
    """The section."""

    asked: AnswerParameters = Field(
        AnswerParameters(), description="how models are asked; part of what a score means"
    )
    batch_size: int = Field(64, ge=1, description="questions answered at once; changes no answer")
    sources: dict[str, Source] = Field({}, description="benchmark -> its published files")
    beside: dict[str, OtherModel] = Field(
        {}, description="name -> a model that is scored beside the recipe's own"
    )
    most_left_in_english: float = Field(
        0.1,
        ge=0,
        le=1,
        description="of a translated benchmark's texts in a language, the share that may stay English because the translation "
        "guard rejected it; above it no model is asked",
    )
    scoring: ScoreParameters = ScoreParameters()
    judge: Judge = Judge()
    rules: dict[str, Path] = Field(
        {}, description="published rules for the judge, such as `llava.en` -> rule.json"
    )
    conduct: Conduct = Conduct()
    calibration: dict[str, Path] = Field(
        {},
        description="benchmark -> a pack of items with another judge's reviews: how far this judge is off it",
    )
    most_judge_failures: float = Field(
        0.05,
        ge=0,
        le=1,
        description="share of failed reviews above which nothing is published, and the next run asks again",
    )
    largest_drop: float = Field(
        0.02,
        ge=0,
        description="a headline that lies further below the best of the last runs, as a share of its highest, is reported",
    )
    compared_runs: int = Field(
        10,
        ge=1,
        le=20,
        description="how many of the last runs a headline is compared with; 1: the last alone",
    )

    @model_validator(mode="after")
    def _calibrated_is_a_model(self) -> Self:
        if self.calibration and self.judge.server is None:
            raise ValueError("`calibration` is for a judge with a `server`: no other drifts")
        return self
