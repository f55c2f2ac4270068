"""The score stage's spec."""

from __future__ import annotations

from pydantic import Field

from pipelines.stage import InputTable, Stage, StageSpec, lazy

NAME = "scores"
CODE_VERSION = "1"


class ScoreAnswersSpec(StageSpec):
    """What `python -m pipelines.score_answers` is told. The languages are those that were asked in."""

    answers: dict[str, InputTable] = Field(min_length=1, description="a name for each model -> its answers")
    benchmarks: InputTable = Field(description="the table whose questions were asked")


STAGE = Stage(
    name=NAME,
    module="pipelines.score_answers",
    spec_type=ScoreAnswersSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.score_answers.run:run"),
    summary="Score models' answers: circular accuracy, open answers, share of answers in the asked language.",
)
