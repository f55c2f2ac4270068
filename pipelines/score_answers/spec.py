"""The score stage's spec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.judge.spec import Judge
from pipelines.remote.spec import Conduct
from pipelines.stage import Execution, InputFile, InputTable, Stage, StageSpec, lazy

NAME = "scores"
CODE_VERSION = "11"
SCORES, READINGS, REVIEWS = "scores.json", "readings.jsonl", "reviews.jsonl"


class ScoreParameters(BaseModel):
    """By which rules answers are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profiles: list[str] = Field(
        ["robust", "vlmevalkit", "parrot-2024-08", "lmms-eval", "official"],
        min_length=1,
        description="rules to read answers by; each benchmark has some of them",
    )
    pivot_language: str = Field("en", description="the language that others are measured against")
    most_refused: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of a benchmark's questions in a language that a server may refuse; with more, scores are incomplete",
    )


class ScoreAnswersSpec(StageSpec):
    """What `python -m pipelines.score_answers` is told. The languages are those that were asked in."""

    answers: dict[str, InputTable] = Field(min_length=1, description="a name for each model -> its answers")
    benchmarks: dict[str, InputTable] = Field(
        min_length=1, description="the tables whose questions were asked"
    )
    judge: Judge = Field(
        Judge(), description="who rates free answers; without a server, overlap with the reference"
    )
    rules: dict[str, InputFile] = Field(
        {}, description="published rules for the judge, by benchmark and language, such as `llava.en`"
    )
    calibration: dict[str, InputFile] = Field(
        {},
        description="benchmark -> a pack of items with another judge's reviews, which this judge reviews too",
    )
    most_judge_failures: Annotated[float, Execution] = Field(
        0.05,
        ge=0,
        le=1,
        description="share of failed reviews, of a model in a benchmark and language, above which nothing is published",
    )
    conduct: Annotated[Conduct, Execution] = Conduct()
    judge_cache: Annotated[Path, Execution] = Field(
        Path("data/cache/requests.sqlite"), description="what the judge's server answered is kept here"
    )
    parameters: ScoreParameters = ScoreParameters()

    @model_validator(mode="after")
    def _calibrated_is_a_model(self) -> Self:
        if self.calibration and self.judge.server is None:
            raise ValueError("`calibration` is for a judge with a `server`: no other drifts")
        return self


STAGE = Stage(
    name=NAME,
    module="pipelines.score_answers",
    spec_type=ScoreAnswersSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.score_answers.run:run"),
    summary="Score models' answers under several tools' rules, each score with its interval; compare models and languages.",
    estimate=lazy("pipelines.score_answers.estimate:estimated"),
)
