"""The answer stage's spec."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pipelines.stage import InputTable, Stage, StageSpec, lazy

NAME = "answers"
CODE_VERSION = "1"


class AnswerParameters(BaseModel):
    """How a model is asked. All of it is part of what a score means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    languages: list[str] = Field(["en", "zh"], min_length=1, description="languages to ask in")
    max_new_tokens: int = Field(16, ge=1, description="longest answer, in tokens")
    batch_size: int = Field(64, ge=1, description="questions answered at once")


class AnswerSpec(StageSpec):
    """What `python -m pipelines.answer` is told."""

    model: InputTable = Field(description="a table with a model folder: pretrained or finetuned")
    benchmarks: InputTable = Field(description="a table with mmmb_<language>.tsv and open_<language>.parquet")
    parameters: AnswerParameters = AnswerParameters()


STAGE = Stage(
    name=NAME,
    module="pipelines.answer",
    spec_type=AnswerSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.answer.run:run"),
    summary="Ask a model every benchmark question, in every language and every rotation of the options.",
)
