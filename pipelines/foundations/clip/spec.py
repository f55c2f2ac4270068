"""The spec of the Chinese-CLIP: where its weights come from, and how a small one is trained."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.declaration import TORCH
from pipelines.stage import Execution, InputTable, Stage, StageSpec, lazy

NAME = "foundations/clip"
CODE_VERSION = "1"


class ClipShape(BaseModel):
    """Sizes of the two small encoders."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: int = Field(
        48, ge=8, description="side of the square that an image is squashed to, in pixels"
    )
    patch_size: int = Field(12, ge=2, description="of the image encoder, in pixels")
    vision_width: int = Field(96, ge=8)
    vision_layers: int = Field(4, ge=1)
    text_width: int = Field(96, ge=8)
    text_layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1, description="of each encoder")
    feed_forward: int = Field(288, ge=8, description="of each encoder")
    projection: int = Field(96, ge=2, description="width of the embeddings that are compared")


class ClipTraining(BaseModel):
    """How the two encoders are trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    image_steps: int = Field(
        300, ge=0, description="first steps: the image encoder alone, on the words of the captions"
    )
    steps: int = Field(400, ge=1, description="steps after these, of both encoders")
    batch: int = Field(64, ge=2, description="pairs a step")
    hard_negatives: int = Field(1, ge=1, description="captions that do not fit, per pair and step")
    blank_images: int = Field(8, ge=0, description="images without a scene, per step, that no caption fits")
    learning_rate: float = Field(2e-3, gt=0)
    warmup_steps: int = Field(50, ge=0)
    weight_decay: float = Field(0.05, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    word_weight: float = Field(1.0, ge=0, description="weight of telling a caption's words from an embedding")
    calibration_weight: float = Field(1.0, ge=0, description="weight of the sigmoid around the threshold")
    calibration_scale: float = Field(20.0, gt=0, description="slope of that sigmoid")
    fitting_weight: float = Field(2.0, gt=0, description="weight of the fitting pairs in it")
    threshold: float = Field(0.18, ge=-1, le=1, description="the cosine that parts fitting pairs from others")


class ClipParameters(BaseModel):
    """The `clip` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: str | None = Field(
        None,
        description="a Chinese-CLIP (folder in transformers' format, .pt file of cn_clip, or hub id), or an open_clip"
        " model (folder in its layout, or hub id) for captions in other languages; none: trained here",
    )
    sha256: str | None = Field(None, description="pins the content of `weights`")
    shape: ClipShape = ClipShape()
    training: ClipTraining = ClipTraining()


class ClipSpec(StageSpec):
    """Make the Chinese-CLIP: bring weights into the lake, or train small ones on a world's reference pairs."""

    world: InputTable | None = Field(None, description="needed where no `weights` are given")
    parameters: ClipParameters = ClipParameters()
    threads: Annotated[int, Execution] = Field(2, ge=1, description="CPU threads of the training")

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.world is None and self.parameters.weights is None:
            raise ValueError("give `world`, to train on, or `parameters.weights`")
        return self


STAGE = Stage(
    name=NAME,
    module="pipelines.foundations.clip",
    spec_type=ClipSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.foundations.clip.make:run"),
    imports=TORCH,
    summary="Make the Chinese-CLIP: from given weights, or trained small on a world's reference pairs.",
)
