"""The score stage's spec."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pipelines.stage import InputTable, Stage, StageSpec, lazy

NAME = "scores"
CODE_VERSION = "2"
SCORES, READINGS = "scores.json", "readings.jsonl"


class ScoreParameters(BaseModel):
    """By which rules answers are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profiles: list[str] = Field(
        ["robust", "vlmevalkit", "parrot-2024-08", "lmms-eval", "official"],
        min_length=1,
        description="rules to read answers by; each benchmark has some of them",
    )
    pivot_language: str = Field("en", description="the language that others are measured against")


class ScoreAnswersSpec(StageSpec):
    """What `python -m pipelines.score_answers` is told. The languages are those that were asked in."""

    answers: dict[str, InputTable] = Field(min_length=1, description="a name for each model -> its answers")
    benchmarks: dict[str, InputTable] = Field(
        min_length=1, description="the tables whose questions were asked"
    )
    parameters: ScoreParameters = ScoreParameters()


STAGE = Stage(
    name=NAME,
    module="pipelines.score_answers",
    spec_type=ScoreAnswersSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.score_answers.run:run"),
    summary="Score models' answers under several tools' rules, each score with its interval; compare models and languages.",
)
