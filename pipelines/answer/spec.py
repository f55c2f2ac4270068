"""The answer stage's spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pipelines.stage import Execution, InputTable, Stage, StageSpec, lazy

NAME = "answers"
CODE_VERSION = "2"


class AnswerParameters(BaseModel):
    """How a model is asked. All of it is part of what a score means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    languages: list[str] | None = Field(
        None, description="languages to ask in; all that the tables have if unset"
    )
    max_new_tokens: int = Field(16, ge=1, description="longest answer, in tokens")
    stop_at_first_wrong: bool = Field(
        True, description="do not ask the rest of an item's rotations once no profile can find it right"
    )


class AnswerSpec(StageSpec):
    """What `python -m pipelines.answer` is told."""

    model: InputTable = Field(description="a table with a model folder: pretrained or finetuned")
    benchmarks: dict[str, InputTable] = Field(min_length=1, description="tables with benchmark files")
    parameters: AnswerParameters = AnswerParameters()
    batch_size: Annotated[int, Execution] = Field(64, ge=1, description="questions answered at once")


STAGE = Stage(
    name=NAME,
    module="pipelines.answer",
    spec_type=AnswerSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.answer.run:run"),
    summary="Ask a model every benchmark question, in every language and every rotation of the options.",
    resumable=True,
)
