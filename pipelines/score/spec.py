"""The spec of the scoring stage, and its declaration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipelines.declaration import TORCH
from pipelines.stage import Execution, InputTable, Stage, StageSpec, lazy

NAME = "clip_scores"
CODE_VERSION = "2"


class ScoreParameters(BaseModel):
    """The `score` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the encoders' products; a score near the threshold can turn in bfloat16"
    )
    keep_embeddings: bool = Field(
        False, description="keep both embeddings of each pair (float16): near-duplicates by meaning need them"
    )


class ScoreSpec(StageSpec):
    """Score the pairs of a crawl. Its ranks share out the shards."""

    raw_pairs: InputTable
    clip: InputTable = Field(description="a foundations/clip table")
    parameters: ScoreParameters = ScoreParameters()
    device: Annotated[Literal["auto", "cpu", "cuda"], Execution] = Field(
        "auto", description="auto: a GPU if the machine has one; a GPU that torch cannot use is an error"
    )
    batch: Annotated[int, Execution] = Field(256, ge=1, description="images, or texts, encoded at once")
    chunk: Annotated[int, Execution] = Field(
        2048, ge=1, description="pairs in memory at once, among which texts are sorted by length"
    )
    threads: Annotated[int | None, Execution] = Field(
        None,
        ge=1,
        description="of each rank: decoding images, and the CPU's products; none: its share of the cores",
    )


STAGE = Stage(
    name=NAME,
    module="pipelines.score",
    spec_type=ScoreSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.score.run:run"),
    imports=TORCH,
    summary="Score image-caption pairs by the cosine of their Chinese-CLIP embeddings.",
    resumable=True,
    divisible=True,
)
