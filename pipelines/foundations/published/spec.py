"""What is told to bring in a part of a system."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.architecture import Architecture
from pipelines.declaration import InputFile, Stage, StageSpec, lazy
from pipelines.training.spec import Generation


class PublishedSpec(StageSpec):
    """Bring a system's language model or visual module into the lake, or a whole model that was published."""

    part: Literal["language_model", "visual", "model"] = Field(
        description="model: both halves in one folder, to be talked with and scored as it was published"
    )
    architecture: Architecture
    tokenizer: InputFile | None = Field(
        None,
        description="of a language model without published weights: tokenizer.json, or CPM-Bee's vocab.txt",
    )
    seed: int = Field(0, description="of what has no published weights")
    generation: Generation | None = Field(
        None, description="of a whole model: how it answers; none: as its language model says"
    )


STAGE = Stage(
    name="published_part",
    module="pipelines.foundations.published",
    spec_type=PublishedSpec,
    code_version="3",
    run=lazy("pipelines.foundations.published.make:run"),
    summary="Bring a system's language model or visual module into the lake, in the layout that training reads; "
    "or a whole published model, to be talked with and scored.",
)
