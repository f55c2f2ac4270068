"""The takedown list of a workspace, as a table: the stages that publish pairs read it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipelines.stage import Stage, StageSpec, lazy

NAME = "takedown"
CODE_VERSION = "1"


class Demand(BaseModel):
    """One URL or domain to be removed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["url", "domain"]
    value: str
    note: str = ""
    """Who demanded it and when, in a person's words."""


class Sighting(BaseModel):
    """A version of a table that was found to contain demanded rows: models may have been made from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    data_version: str
    shard: str
    rows: int
    demands: tuple[str, ...]
    """The URLs and domains that were searched for together."""


class TakedownSpec(StageSpec):
    """Publish the list."""

    demands: list[Demand]
    sightings: list[Sighting] = Field([])


STAGE = Stage(
    name=NAME,
    module="pipelines.takedown",
    spec_type=TakedownSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.takedown.keep:run"),
    summary="Keep the list of what must not be published again.",
)
