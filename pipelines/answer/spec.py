"""The answer stage's spec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.declaration import TORCH
from pipelines.remote.spec import Conduct, Server
from pipelines.stage import Execution, InputFile, InputTable, Stage, StageSpec, lazy

NAME = "answers"
CODE_VERSION = "8"


class AnswerParameters(BaseModel):
    """How a model is asked. All of it is part of what a score means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    languages: list[str] | None = Field(
        None, description="languages to ask in; all that the tables have if unset"
    )
    max_new_tokens: int = Field(16, ge=1, description="longest answer, in tokens")
    max_new_tokens_of: dict[str, int] = Field(
        {"llava": 1024, "unimm": 1024}, description="benchmark -> longest answer, where it is another"
    )
    beams: int | None = Field(
        None, ge=1,
        description="own models only; 1 is greedy, VisCPM's protocol is 3; none: as the model's generation_config.json says",
    )  # fmt: skip
    stop_at_first_wrong: bool = Field(
        True, description="do not ask the rest of an item's rotations once no profile can find it right"
    )


class AnswerSpec(StageSpec):
    """What `python -m pipelines.answer` is told. One of the first three is the model that is asked."""

    model: InputTable | None = Field(None, description="a table with a model folder: pretrained or finetuned")
    transformers_model: InputFile | None = Field(
        None, description="a folder of any vision-language model that transformers loads, safetensors only"
    )
    server: Server | None = Field(None, description="a model behind an OpenAI-compatible server")
    benchmarks: dict[str, InputTable] = Field(min_length=1, description="tables with benchmark files")
    parameters: AnswerParameters = AnswerParameters()
    batch_size: Annotated[int, Execution] = Field(64, ge=1, description="questions answered at once")
    conduct: Annotated[Conduct, Execution] = Conduct()
    cache: Annotated[Path, Execution] = Field(
        Path("data/cache/requests.sqlite"), description="what a server answered is kept here"
    )

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if sum(one is not None for one in (self.model, self.transformers_model, self.server)) != 1:
            raise ValueError("give one of `model`, `transformers_model` and `server`")
        return self


STAGE = Stage(
    name=NAME,
    module="pipelines.answer",
    spec_type=AnswerSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.answer.run:run"),
    imports=TORCH,
    summary="Ask a model every benchmark question, in every language and every rotation of the options.",
    resumable=True,
    reach=lambda spec: "store" if spec.server is None else "servers",
)
