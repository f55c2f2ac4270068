"""What the vision foundation is told."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pipelines.declaration import TORCH
from pipelines.stage import Execution, InputTable, Stage, StageSpec, lazy


class SmallVisionEncoder(BaseModel):
    """Shape of the small vision transformer with query tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: int = 48
    patch_size: int = 12
    queries: int = 8
    width: int = 192
    layers: int = 4
    heads: int = 4
    mlp_ratio: float = 3.0


class VisionTraining(BaseModel):
    """How the encoder is trained on images and captions of the pivot language."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(400, ge=0, description="0 leaves the encoder's weights random")
    batch: int = Field(64, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    seed: int = 0


class VisionParameters(BaseModel):
    """The `vision` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: SmallVisionEncoder = SmallVisionEncoder()
    training: VisionTraining = VisionTraining()


class VisionSpec(StageSpec):
    """Make the visual module, as wide as the language model wants it, and train its encoder."""

    language_model: InputTable
    world: InputTable | None = Field(None, description="whose reference pairs the encoder is trained on")
    language: str = Field("en", description="the pivot language: no other captions are read")
    shape: SmallVisionEncoder = SmallVisionEncoder()
    training: VisionTraining = VisionTraining()
    seed: int = 0
    threads: Annotated[int, Execution] = Field(2, ge=1, description="CPU threads")


STAGE = Stage(
    name="vision",
    module="pipelines.foundations.vision",
    spec_type=VisionSpec,
    code_version="2",
    run=lazy("pipelines.foundations.vision.train:run"),
    imports=TORCH,
    summary="Make the visual module (vision transformer, query tokens, bridge) and train its encoder.",
)
