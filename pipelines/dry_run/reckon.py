"""The arithmetic of a training: parameters per part, bytes per GPU, operations per step, hours.

Parameters are counted on the real network, built on the meta device. Everything else is a model of it:

- **Memory** of weights and optimiser. At stage 0 all is float32 and bf16 is autocast: 4 bytes a weight, frozen or not, and for each
  trained one 4 of gradient and 8 of Adam moments, and 4 more on several ranks, which sum a flat copy of the gradients. Under ZeRO
  weights are bf16: 2 bytes each, and for each trained one 2 of gradient and 12 of float32 master weight and Adam moments; shared by
  the ranks as ZeRO does (stage 1 the 12, stage 2 also the gradients, stage 3 also the weights, frozen ones too). Activations: 34 bytes per token, layer and unit of width (Korthikanti et
  al. 2022, section 4.1, attention recomputed), or under gradient checkpointing 2 and one layer's 34. Buffers and fragmentation are not in it.
- **Operations**: 2 per weight and token forward; backward 2 more where something before is trained, and 2 more where the
  weight itself is. The head counts at supervised positions. What checkpointing computes twice is not counted: MFU measures use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from models.architecture import Beit3Encoder, ClipEncoder, Visual
from models.factory import Network, skeleton
from models.parts import parts, trained_parts
from pipelines.errors import BadInput
from pipelines.systems.recipe import Source, System, Training

TARGET_MFU = 0.4
"""What the trainer aims at on an A100 or H100; not measured here."""
WEIGHT, GRADIENT, OPTIMISER = 2, 2, 12
"""Bytes per parameter under ZeRO."""
FLOAT32, MOMENTS = 4, 8
"""Bytes of a float32 number, and of a parameter's two Adam moments."""
ACTIVATION, KEPT = 34, 2
"""Bytes per token, layer and unit of width: all of a layer's activations, or its input alone."""
SUPERVISED = {"pretraining": 0.8, "tuning": 0.5}
"""Share of a sample's text that is supervised, as reckoned with."""
SENTENCES = {"pretraining": 1, "tuning": 12}
"""Of a caption, and of a conversation in LLaVA-Instruct's manner, as reckoned with."""


@dataclass(frozen=True)
class StageReckoning:
    """One training stage."""

    trained: dict[str, int]
    """Parameters of each trained part."""
    frozen: dict[str, int]
    memory_gb: dict[int, float]
    """ZeRO stage -> 10^9 bytes of weights, gradients and optimiser per GPU."""
    activations_gb: float
    zero_stage: int
    fits: bool
    rows_per_step: int
    """Packed rows, or samples that are padded."""
    rows_at_once: int
    """That a GPU computes in a pass."""
    accumulation: int
    """Passes of the GPU that has the most rows."""
    evenness: float
    """Rows over those that could be computed in the time of the busiest GPU."""
    tokens_per_sample: int
    tokens_per_step: int
    flops_per_step: float
    steps: int
    gpu_hours: float
    days: float
    samples_per_second_per_gpu: float


@dataclass(frozen=True)
class Rates:
    """What one machine does in a second: given, since neither can be known from a recipe."""

    images: float = 50.0
    """Fetched; strangers' servers and the line decide it."""
    sentences: float = 200.0
    """Translated."""


@dataclass(frozen=True)
class SourceReckoning:
    """What a source takes before it is trained on, on one machine."""

    rows: int
    """Taken in, of all its crawls."""
    slice: bool
    """Whether the recipe says so many; else they are the recipe's samples."""
    sentences: int
    """To translate, if every row is kept."""
    fetching_hours: float
    """If every row has an image of its own that is fetched."""
    translating_hours: float


@dataclass(frozen=True)
class Reckoning:
    """A whole system."""

    parameters: dict[str, int]
    image_tokens: int
    mfu: float
    stages: dict[str, StageReckoning]
    rates: Rates
    sources: dict[str, SourceReckoning]

    @property
    def hours(self) -> float:
        """From the first row to the tuned model, one thing after another."""
        data = sum(one.fetching_hours + one.translating_hours for one in self.sources.values())
        return data + sum(24 * stage.days for stage in self.stages.values())

    @property
    def gpu_hours(self) -> float:
        """Of all stages together."""
        return sum(stage.gpu_hours for stage in self.stages.values())


def reckon(system: System, *, mfu: float = TARGET_MFU, rates: Rates | None = None) -> Reckoning:
    """What training `system` takes at a given MFU, and its data at given rates.

    Raises:
        BadInput: a learning rate names a part that the network does not have, or the batch cannot be shared.
        WeightsError: transformers cannot build the language model.
    """
    network = skeleton(system.architecture)
    return Reckoning(
        parameters={name: _count(found) for name, found in parts(network).items()},
        image_tokens=system.architecture.visual.encoder.tokens,
        mfu=mfu,
        stages={
            name: _stage(system, name, training, network, mfu) for name, training in system.stages.items()
        },
        rates=rates or Rates(),
        sources={
            source: _source(one, SENTENCES[name], rates or Rates())
            for name, training in system.stages.items()
            for source, one in training.sources.items()
        },
    )


def _source(source: Source, sentences: int, rates: Rates) -> SourceReckoning:
    translated = [language for language in source.languages if language != source.own_language]
    rows = (source.rows or 0) * len(source.crawls) or math.ceil(source.samples / len(source.languages))
    texts = rows * sentences * len(translated)
    return SourceReckoning(
        rows=rows, slice=source.rows is not None, sentences=texts, fetching_hours=rows / rates.images / 3600,
        translating_hours=texts / rates.sentences / 3600,
    )  # fmt: skip


def _stage(system: System, name: str, training: Training, network: Network, mfu: float) -> StageReckoning:
    hardware = system.hardware
    try:
        chosen = trained_parts(network, training.learning_rates)
    except KeyError as error:
        raise BadInput(
            str(error.args[0]), where=f"{name}.learning_rates", remedy="name one of these"
        ) from None
    trained = {part: _count(one.parameters) for part, one in chosen.items()}
    frozen = {
        part: left for part, found in parts(network).items() if (left := _count(found) - trained.get(part, 0))
    }
    everything, learning = sum(trained.values()) + sum(frozen.values()), sum(trained.values())

    tokens = system.architecture.visual.encoder.tokens + training.mean_tokens
    rows = _rows(training, name, tokens, hardware.gpus)
    per_sample = operations(
        network, system.architecture.visual, set(trained), tokens=tokens,
        supervised=round(SUPERVISED[name] * training.mean_tokens),
    )  # fmt: skip
    steps, per_step = training.total_steps, per_sample * training.batch_size
    memory = {stage: zero_bytes(everything, learning, hardware.gpus, stage) / 1e9 for stage in range(4)}
    activations = (
        activation_bytes(network, rows.tokens * rows.at_once, checkpointed=training.gradient_checkpointing)
        / 1e9
    )
    seconds = per_step * steps / (hardware.peak_tflops * 1e12 * mfu) / rows.evenness
    return StageReckoning(
        trained=trained,
        frozen=frozen,
        memory_gb=memory,
        activations_gb=activations,
        zero_stage=training.zero_stage,
        fits=memory[training.zero_stage] + activations < hardware.memory_gb,
        rows_per_step=rows.number,
        rows_at_once=rows.at_once,
        accumulation=rows.passes,
        evenness=rows.evenness,
        tokens_per_sample=tokens,
        tokens_per_step=tokens * training.batch_size,
        flops_per_step=per_step,
        steps=steps,
        gpu_hours=seconds / 3600,
        days=seconds / 86400 / hardware.gpus,
        samples_per_second_per_gpu=hardware.peak_tflops * 1e12 * mfu / per_sample * rows.evenness,
    )


@dataclass(frozen=True)
class _Rows:
    """How a step's samples lie in rows, and the rows on the GPUs."""

    number: int
    tokens: int
    """Most of a row."""
    at_once: int
    passes: int
    evenness: float


def _rows(training: Training, name: str, tokens: int, gpus: int) -> _Rows:
    """Rows of samples that have so many tokens each."""
    if training.pack_tokens is None:
        if training.batch_size % gpus:
            raise BadInput(
                f"a batch of {training.batch_size} cannot be shared by {gpus} GPUs",
                where=f"{name}.batch_size", remedy="choose a number of GPUs that divides it",
            )  # fmt: skip
        share = training.batch_size // gpus
        at_once = min(training.per_gpu or share, share)
        return _Rows(training.batch_size, tokens, at_once, -(-share // at_once), 1.0)
    fewest = math.ceil(tokens * training.batch_size / training.pack_tokens)
    number = min(fewest + -fewest % training.packs_multiple, training.batch_size)
    if number < gpus:
        raise BadInput(
            f"{gpus} GPUs have {number} packed rows a step, so that some would have nothing to do",
            where=f"{name}.packs_multiple",
            remedy="choose fewer GPUs, or set `packs_multiple` to their number: that makes another data plan",
        )
    most = -(-number // gpus)
    return _Rows(number, training.pack_tokens, 1, most, number / (most * gpus))


def zero_bytes(parameters: int, trained: int, ranks: int, stage: int) -> float:
    """Bytes per GPU of weights, gradients and optimiser under a ZeRO stage (Rajbhandari et al. 2020, section 5); at stage 0, in float32."""
    if stage == 0:
        copies = 2 if ranks > 1 else 1
        return parameters * FLOAT32 + trained * (FLOAT32 * copies + MOMENTS)
    optimiser = trained * OPTIMISER / ranks
    gradients = trained * GRADIENT / (ranks if stage >= 2 else 1)
    weights = parameters * WEIGHT / (ranks if stage >= 3 else 1)
    return optimiser + gradients + weights


def activation_bytes(network: Network, tokens: int, *, checkpointed: bool) -> float:
    """Bytes of the language model's activations for so many tokens at once."""
    config: Any = network.language_model.config
    per_layer = tokens * config.hidden_size
    if checkpointed:
        return per_layer * (KEPT * config.num_hidden_layers + ACTIVATION)
    return per_layer * ACTIVATION * config.num_hidden_layers


def operations(network: Network, visual: Visual, trained: set[str], *, tokens: int, supervised: int) -> float:
    """Floating-point operations of one sample with one image, forward and backward."""
    learns = {part.split(".")[0] for part in trained}
    states, total, before = visual_positions(visual), 0.0, False
    for part, found in parts(network).items():
        if part.startswith("visual."):
            own = part in trained
            # The bridge and the experts come after the encoder: they pass gradients on only where it learns.
            passes = own or (before and part != "visual.vision_experts")
            for name, parameter in found:
                if parameter.ndim >= 2 and "embed_positions" not in name and "position_embedding" not in name:
                    total += parameter.numel() * states(name) * (2 + 2 * passes + 2 * own)
            before = before or own
    reached = "visual" in learns or "language_model" in learns
    tables = {id(_weight(network.language_model, kind)) for kind in ("input", "output")}
    for part, found in parts(network).items():
        if part.endswith("language_model"):
            body = sum(p.numel() for _, p in found if p.ndim >= 2 and id(p) not in tables)
            total += body * tokens * (2 + 2 * reached + 2 * (part in trained))
    head = _weight(network.language_model, "output").numel()
    total += head * supervised * (2 + 2 * reached + 2 * ("language_model" in trained))
    config: Any = network.language_model.config
    pairs = tokens * (tokens + 1) / 2
    return total + 4.0 * config.num_hidden_layers * config.hidden_size * pairs * (3 if reached else 1)


def visual_positions(visual: Visual) -> Callable[[str], int]:
    """How many positions a visual weight works on, by its name."""
    encoder = visual.encoder
    image = (encoder.image_size // encoder.patch_size) ** 2 + 1

    def positions(name: str) -> int:
        if not name.startswith("visual.encoder."):
            return image if isinstance(encoder, ClipEncoder) else encoder.tokens
        if isinstance(encoder, Beit3Encoder):
            return encoder.queries if ".B." in name else image
        return image if isinstance(encoder, ClipEncoder) else image + encoder.tokens

    return positions


def _weight(model: nn.Module, kind: str) -> nn.Parameter:
    weight: nn.Parameter = getattr(model, f"get_{kind}_embeddings")().weight
    return weight


def _count(named: list[tuple[str, nn.Parameter]]) -> int:
    return sum(parameter.numel() for _, parameter in named)
