"""What the training stages are told: which parts learn, how fast, for how long, on what."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.stage import Execution, InputTable, Stage, StageSpec, lazy

Part = Literal["visual", "language_model"]


class Optimisation(BaseModel):
    """A recipe's section for one training stage. Linear warm-up, then cosine decay."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: needs whole matrices, so zero_stage 0"
    )
    steps: int = Field(gt=0)
    batch_size: int = Field(64, gt=0, description="samples per step, over all ranks")
    learning_rates: dict[Part, float] = Field(
        description="peak learning rate of each trained part; a part that is not named is frozen"
    )
    warmup_steps: int = Field(30, ge=0)
    final_fraction: float = Field(
        0.02, ge=0, le=1, description="learning rate at the end, as a share of the peak"
    )
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    gradient_clipping: float = Field(1.0, gt=0)
    zero_stage: Literal[0, 1, 2] = Field(2, description="DeepSpeed ZeRO; at stage 0, bf16 is autocast")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 where the hardware has it"
    )
    seed: int = 0
    checkpoint_every: Annotated[int, Execution] = Field(200, gt=0, description="steps between checkpoints")

    @model_validator(mode="after")
    def _muon_has_whole_matrices(self) -> Self:
        if self.optimizer == "muon" and self.zero_stage != 0:
            raise ValueError("optimizer muon needs zero_stage 0: higher stages flatten the matrices")
        return self


class TrainingSpec(StageSpec):
    """Common to all training stages."""

    optimisation: Optimisation


class PretrainSpec(TrainingSpec):
    """Multimodal pretraining (MpM paper, section 3): -log p(caption | h(image)), pivot language only."""

    language_model: InputTable
    vision: InputTable
    shards: dict[str, InputTable]
    """Training shards, by crawl."""
    pivot_language: str
    prompts: list[str] = Field(
        min_length=1, description="requests that a caption answers, in the pivot language"
    )


class FinetuneSpec(TrainingSpec):
    """Instruction tuning: visual module and language model on the blend; loss on the answers."""

    pretrained: InputTable
    instructions: InputTable


PRETRAIN = Stage(
    name="pretrained",
    module="pipelines.training.pretrain",
    spec_type=PretrainSpec,
    code_version="2",
    run=lazy("pipelines.training.pretrain:run"),
    summary="Multimodal pretraining: the visual module learns captions in the pivot language.",
    resumable=True,
)
FINETUNE = Stage(
    name="finetuned",
    module="pipelines.training.finetune",
    spec_type=FinetuneSpec,
    code_version="2",
    run=lazy("pipelines.training.finetune:run"),
    summary="Bilingual instruction tuning: the visual module and the language model learn answers.",
    resumable=True,
)
