"""The spec of the training shards: whose pairs, in which order, how many to a shard."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pipelines.stage import Execution, InputTable, Stage, StageSpec, lazy

NAME = "training_shards"
CODE_VERSION = "1"


class ShardParameters(BaseModel):
    """The `shard` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(0, description="of the order of all samples")
    samples_per_shard: int = Field(1000, ge=1)


class ShardSpec(StageSpec):
    """Write the training shards of a crawl."""

    raw_pairs: InputTable = Field(description="where the images and captions stand")
    filtered_pairs: InputTable = Field(description="which pairs were kept")
    translations: InputTable | None = Field(
        None, description="further captions of the pairs; none: their own only"
    )
    takedown: InputTable | None = Field(None, description="the takedown list: what it names is left out")
    source: str = Field("crawl", min_length=1, description="name of the crawl, written into every sample")
    parameters: ShardParameters = ShardParameters()
    workers: Annotated[int | None, Execution] = Field(
        None, ge=1, description="processes that write shards; none: one per core, with several shards each"
    )


STAGE = Stage(
    name=NAME,
    module="pipelines.shard",
    spec_type=ShardSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.shard.write:run"),
    summary="Write the kept pairs as byte-reproducible webdataset shards with all captions and an index.",
    resumable=True,
)
