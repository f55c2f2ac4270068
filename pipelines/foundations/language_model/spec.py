"""What the language-model foundation is told."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pipelines.declaration import DEEPSPEED
from pipelines.stage import InputTable, Stage, StageSpec, lazy
from pipelines.training.spec import Optimisation


class SmallLanguageModel(BaseModel):
    """Shape of the small Qwen2-architecture model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(512, description="most tokens that the tokenizer may have")
    width: int = 128
    layers: int = 4
    heads: int = 4
    mlp_width: int = 344
    positions: int = 512


class LanguageModelSpec(StageSpec):
    """Train the small language model on the world's documents."""

    world: InputTable
    shape: SmallLanguageModel = SmallLanguageModel()
    optimisation: Optimisation


STAGE = Stage(
    name="language_model",
    module="pipelines.foundations.language_model",
    spec_type=LanguageModelSpec,
    code_version="1",
    run=lazy("pipelines.foundations.language_model.train:run"),
    imports=DEEPSPEED,
    summary="Train a small bilingual language model (Qwen2 architecture) on text only.",
    resumable=True,
)
