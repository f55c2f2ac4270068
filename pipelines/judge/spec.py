"""Who judges, by which rule, and how what it writes is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.declaration import Execution, InputFile, Stage, StageSpec, lazy
from pipelines.remote.spec import Conduct, Server

NAME = "judgement"
CODE_VERSION = "1"
OVERLAP = "reference_overlap"
"""The name of the score that needs no judge: how much of the reference's characters an answer shares."""

Protocol = Literal["pair", "rating"]
Reading = Literal["published", "tolerant"]


class Judge(BaseModel):
    """A judge. Everything here decides the score; how a server is asked stands in `Conduct`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    server: Server | None = Field(
        None, description=f"the model that judges; none: {OVERLAP}, which is no model and is never called one"
    )
    protocol: Protocol = Field(
        "pair",
        description="pair: the reference and the answer are each rated 1 to 10, the reference first (LLaVA). "
        "rating: the answer is rated 1 to 5 against the expected one (UniMM-Bench)",
    )
    reading: Reading = Field(
        "tolerant",
        description="published: the first line is exactly two numbers, as LLaVA's script reads it. tolerant: also "
        "8/10, bold type and labels. Scores of the two are never mixed",
    )
    swap: bool = Field(
        True,
        description="also ask with the answer first, to measure the bias for a place; twice the requests",
    )

    @model_validator(mode="after")
    def _a_rating_has_no_places(self) -> Self:
        if (
            self.server is not None
            and self.protocol == "rating"
            and self.swap
            and "swap" in self.model_fields_set
        ):
            raise ValueError("`swap` is for the protocol `pair`: a rating puts nothing side by side")
        return self

    @property
    def name(self) -> str:
        """What a score is labelled with."""
        return OVERLAP if self.server is None else self.server.model


class JudgeSpec(StageSpec):
    """Judge answers, or hold a judge against the stored reviews of another."""

    items: InputFile = Field(description="JSON lines: what is judged; see pipelines/judge/items.py")
    judge: Judge = Judge()
    rules: dict[str, InputFile] = Field(
        {},
        description="by language, a published file of rules (JSON: category -> prompt, role); without one, the "
        "project's own wording, whose scores are not those of another",
    )
    calibration: InputFile | None = Field(
        None, description="JSON lines: items with another judge's reviews, which this judge reviews too"
    )
    most_failures: Annotated[float, Execution] = Field(
        0.05, ge=0, le=1, description="share of items without a review above which nothing is published"
    )
    conduct: Annotated[Conduct, Execution] = Conduct()
    cache: Annotated[Path, Execution] = Field(
        Path("data/cache/requests.sqlite"), description="answers of the server are kept here"
    )


STAGE = Stage(
    name=NAME,
    module="pipelines.judge",
    spec_type=JudgeSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.judge.run:run"),
    summary="Judge free answers by a language model behind a server, or by their overlap with a reference.",
    resumable=True,
    reach=lambda spec: "store" if spec.judge.server is None else "servers",
    estimate=lazy("pipelines.judge.run:estimated"),
)
