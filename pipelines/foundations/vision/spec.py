"""What the vision foundation is told."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pipelines.stage import InputTable, Stage, StageSpec, lazy


class SmallVisionEncoder(BaseModel):
    """Shape of the small vision transformer with query tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: int = 48
    patch_size: int = 8
    queries: int = 8
    width: int = 192
    layers: int = 4
    heads: int = 4
    mlp_ratio: float = 3.0


class VisionSpec(StageSpec):
    """Make the visual module with seeded random weights, as wide as the language model wants it."""

    language_model: InputTable
    shape: SmallVisionEncoder = SmallVisionEncoder()
    seed: int = 0


STAGE = Stage(
    name="vision",
    module="pipelines.foundations.vision",
    spec_type=VisionSpec,
    code_version="1",
    run=lazy("pipelines.foundations.vision.make:run"),
    summary="Make the visual module: a small vision transformer with query tokens, and a linear bridge.",
)
