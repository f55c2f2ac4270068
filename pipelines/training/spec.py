"""What the training stages are told: which parts learn, how fast, for how long, on what."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.architecture import Lora
from pipelines.declaration import DEEPSPEED
from pipelines.stage import Execution, InputTable, Stage, StageSpec, lazy

INSTRUCTIONS = "instructions"
"""Name of the one source of a tuning's pack plan."""


class Optimisation(BaseModel):
    """A recipe's section for one training stage. Linear warm-up, then cosine decay."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: needs whole matrices, so zero_stage 0"
    )
    steps: int = Field(gt=0)
    batch_size: int = Field(64, gt=0, description="samples per step, over all ranks")
    pack_tokens: int | None = Field(
        None, gt=0,
        description="most tokens of a row that samples are packed into; without it, a sample is a row, padded",
    )  # fmt: skip
    sample_tokens: int | None = Field(
        None, gt=0,
        description="most tokens of a sample, its images' among them; longer ones are left out, and counted",
    )  # fmt: skip
    packs_multiple: int = Field(
        1, gt=0,
        description="packs of a step are a multiple of it: give the most ranks that shall be equally busy. The plan does "
        "not know the ranks, so that a training goes on on another number of them",
    )  # fmt: skip
    micro_batch: Annotated[int | None, Execution] = Field(
        None, gt=0,
        description="rows that a rank computes at a time; without it, one packed row, or all rows that are padded",
    )  # fmt: skip
    mixture: dict[str, float] = Field(
        {}, description="weight of each source in the batches; without it, every sample comes equally often"
    )
    learning_rates: dict[str, float] = Field(
        min_length=1,
        description="peak learning rate of each trained part (`models.parts`), or of what parameters' names begin with up to a "
        "dot (`visual`, `visual.bridge`): for each parameter the longest that fits holds, and those without one are frozen",
    )
    warmup_steps: int = Field(30, ge=0)
    final_fraction: float = Field(
        0.02, ge=0, le=1, description="learning rate at the end, as a share of the peak"
    )
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    gradient_clipping: float = Field(1.0, gt=0)
    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="DeepSpeed ZeRO; at stage 0, bf16 is autocast")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 where the hardware has it"
    )
    not_finite: Literal["stop", "skip"] = Field(
        "stop", description="what follows a gradient that is no number; a step is never taken with it"
    )
    most_skipped: int = Field(3, ge=1, description="steps skipped in a row that stop the training, too")
    seed: int = 0
    fused_kernels: bool = Field(False, description="Liger's kernels, where they are installed; GPU only")
    compile: bool = Field(
        False, description="torch.compile for the language model's layers; rows get one length"
    )
    activation_checkpointing: Annotated[bool, Execution] = Field(
        False, description="compute the language model's activations twice instead of keeping them"
    )
    data_workers: Annotated[int, Execution] = Field(
        0, ge=0, description="processes of a rank that read and decode ahead"
    )
    checkpoint_every: Annotated[int, Execution] = Field(200, gt=0, description="steps between checkpoints")
    checkpoints_kept: Annotated[int, Execution] = Field(
        2, gt=0, description="the newest so many stay; the one before it in case the newest is damaged"
    )
    keep_every: Annotated[int | None, Execution] = Field(
        None, gt=0, description="checkpoints at multiples of so many steps stay for good"
    )

    @model_validator(mode="after")
    def _muon_has_whole_matrices(self) -> Self:
        if self.optimizer == "muon" and self.zero_stage != 0:
            raise ValueError("optimizer muon needs zero_stage 0: higher stages flatten the matrices")
        return self


class TrainingSpec(StageSpec):
    """Common to all training stages."""

    optimisation: Optimisation


class PlanSpec(StageSpec):
    """The order of a training's data: which samples in which pack of which step."""

    kind: Literal["captions", "conversations"]
    tokenizer: InputTable = Field(
        description="the language model, or a whole model: its tokenizer and template"
    )
    vision: InputTable | None = Field(None, description="the visual module; none: that of `tokenizer`")
    shards: dict[str, InputTable] = Field(
        min_length=1, description="training shards by name: of a source, or of one crawl and language of it"
    )
    sources: dict[str, str] = Field(
        {},
        description="name in `shards` -> the source of `mixture` that it is a part of; none: a source itself",
    )
    languages: dict[str, str] = Field(
        {}, description="name in `shards` -> language of the captions that are read; none: the pivot language"
    )
    pivot_language: str = "en"
    target_languages: list[str] = Field([], description="further languages of held-out captions")
    prompts: list[str] = Field([], description="requests that a caption answers, in the pivot language")
    prompts_of: dict[str, list[str]] = Field({}, description="requests in the other `languages`")
    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    pack_tokens: int | None = Field(None, gt=0)
    sample_tokens: int | None = Field(None, gt=0)
    packs_multiple: int = Field(1, gt=0, description="packs of a step are a multiple of it")
    mixture: dict[str, float] = Field(
        {}, description="weight of each source; none: every sample equally often"
    )
    seed: int = 0
    held_out: int = Field(
        0, ge=0, description="captions that are kept from training, for the pivot gap; at most a tenth of all"
    )
    held_out_captions: InputTable | None = Field(
        None, description="instead: a table of such captions, which were translated for it"
    )

    @model_validator(mode="after")
    def _held_out_once(self) -> Self:
        if self.held_out and self.held_out_captions is not None:
            raise ValueError("give `held_out`, a number, or `held_out_captions`, a table")
        return self


PLANNED = {"steps", "batch_size", "pack_tokens", "sample_tokens", "packs_multiple", "mixture", "seed"}


def data_order(optimisation: Optimisation) -> dict[str, Any]:
    """What a pack plan takes over of a training's own section."""
    return optimisation.model_dump(include=PLANNED)


def caption_languages(spec: PlanSpec | PretrainSpec) -> list[str]:
    """The language that is read of each table of shards, in their order."""
    return [spec.languages.get(name, spec.pivot_language) for name in spec.shards]


def caption_prompts(spec: PlanSpec | PretrainSpec) -> dict[str, list[str]]:
    """The requests for a caption in each language."""
    return {spec.pivot_language: spec.prompts, **spec.prompts_of}


class PretrainSpec(TrainingSpec):
    """Multimodal pretraining (MpM paper, section 3): -log p(caption | h(image)), in the pivot language.

    Only its ablations and VisCPM-Chat+ read captions of other languages, too: `languages`.
    """

    language_model: InputTable
    vision: InputTable
    shards: dict[str, InputTable]
    """Training shards, by crawl, or as the plan names them."""
    languages: dict[str, str] = Field(
        {}, description="name in `shards` -> language of the captions that are read; none: the pivot language"
    )
    pivot_language: str
    prompts: list[str] = Field(
        min_length=1, description="requests that a caption answers, in the pivot language"
    )
    prompts_of: dict[str, list[str]] = Field({}, description="requests in the other `languages`")
    plan: InputTable | None = Field(None, description="the pack plan; without one, it is made in memory")
    gap_prompts: dict[str, str] = Field(
        {}, description="a request in other languages, for the pivot gap; without one, the pivot language's"
    )


class Generation(BaseModel):
    """How the model answers, by transformers' names: published as its generation_config.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_beams: int = Field(1, ge=1)
    max_new_tokens: int = Field(512, ge=1)
    repetition_penalty: float = Field(1.0, gt=0)
    length_penalty: float = 1.0


class FinetuneSpec(TrainingSpec):
    """Instruction tuning: visual module and language model on the blend; loss on the answers."""

    pretrained: InputTable
    instructions: InputTable
    lora: Lora | None = Field(
        None,
        description="adapters in the language model, which are then all of it that `language_model` trains",
    )
    plan: InputTable | None = Field(None, description="the pack plan; without one, it is made in memory")
    generation: Generation | None = Field(None, description="how the model answers; none: as it did before")
    held_out: InputTable | None = Field(
        None, description="the pretraining's plan, whose held-out captions give the pivot gap"
    )
    pivot_language: str = "en"
    gap_prompts: dict[str, str] = Field(
        {}, description="a request for a caption in each language, for the pivot gap"
    )


PLAN = Stage(
    name="pack_plan",
    module="pipelines.training.planning",
    spec_type=PlanSpec,
    code_version="2",
    run=lazy("pipelines.training.planning:run"),
    summary="Plan a training's data: which samples are packed into which rows of which step.",
)
PRETRAIN = Stage(
    name="pretrained",
    module="pipelines.training.pretrain",
    spec_type=PretrainSpec,
    code_version="5",
    run=lazy("pipelines.training.pretrain:run"),
    imports=DEEPSPEED,
    summary="Multimodal pretraining: the visual module learns captions in the pivot language.",
    resumable=True,
)
FINETUNE = Stage(
    name="finetuned",
    module="pipelines.training.finetune",
    spec_type=FinetuneSpec,
    code_version="5",
    run=lazy("pipelines.training.finetune:run"),
    imports=DEEPSPEED,
    summary="Bilingual instruction tuning: the visual module and the language model learn answers.",
    resumable=True,
)
