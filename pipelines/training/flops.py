"""Floating-point operations that a training step needs, parts that are frozen counted as what they cost.

A matrix of N weights costs 2N per token forward. Backward it costs 2N for the gradient of what came in, where
something before it is trained, and 2N for its own gradient, where it is trained itself: 6N for a trained layer,
4N for a frozen language model behind a trained visual module, 2N for a frozen encoder at the very front.
What is computed twice (activation checkpointing) or for padding is not counted: MFU measures use, not heat.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from models.architecture import ClipEncoder
from models.visual import VisualModule

PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "L40S": 362e12, "4090": 165e12, "V100": 125e12}
"""Dense bf16 (V100: fp16) operations per second, from the vendor's data sheets, by a part of the device's name."""
PROBE = 1024


@dataclass(frozen=True)
class StepCost:
    """Operations per unit of work, forward and backward."""

    per_token: float
    per_supervised_token: float
    per_image: float
    per_attended_pair: float
    """Of two tokens of one sample, of which the later attends to the earlier: all layers together."""

    def of(self, *, tokens: float, supervised: float, images: float, pairs: float) -> float:
        return (
            tokens * self.per_token + supervised * self.per_supervised_token
            + images * self.per_image + pairs * self.per_attended_pair
        )  # fmt: skip


def step_cost(model: nn.Module) -> StepCost:
    """The costs of `model` (parts `language_model` and, perhaps, `visual`) as it is frozen now."""
    language_model: Any = model.get_submodule("language_model")
    front = [one for name, one in model.named_children() if name != "language_model"]
    before = any(p.requires_grad for part in front for p in part.parameters())
    head, body = 0.0, 0.0
    output = (
        language_model.get_output_embeddings() if hasattr(language_model, "get_output_embeddings") else None
    )
    embedding = (
        language_model.get_input_embeddings() if hasattr(language_model, "get_input_embeddings") else None
    )
    tables = {id(one.weight) for one in (output, embedding) if one is not None}
    reached = before or any(p.requires_grad for p in language_model.parameters())
    for parameter in language_model.parameters():
        if parameter.ndim >= 2 and id(parameter) not in tables:
            body += _numel(parameter) * (2 + 2 * reached + 2 * parameter.requires_grad)
    if output is not None:
        head = _numel(output.weight) * (2 + 2 * reached + 2 * output.weight.requires_grad)
    image = 0.0
    trained_yet = False
    for part in front:
        for parameter in part.parameters():
            trained_yet = trained_yet or parameter.requires_grad
            if parameter.ndim >= 2:
                image += _numel(parameter) * (2 + 2 * trained_yet + 2 * parameter.requires_grad)
    config = getattr(language_model, "config", None)
    layers, width = getattr(config, "num_hidden_layers", 0), getattr(config, "hidden_size", 0)
    return StepCost(body, head, image * image_positions(model), layers * 4.0 * width * (3 if reached else 1))


def image_positions(model: nn.Module) -> int:
    """Positions that the model's visual module computes for one image: patches, and queries or a [CLS]."""
    for module in model.modules():
        if isinstance(module, VisualModule):
            encoder = module.config.encoder
            patches = (encoder.image_size // encoder.patch_size) ** 2
            return patches + (1 if isinstance(encoder, ClipEncoder) else encoder.queries)
    return 0


def _numel(parameter: nn.Parameter) -> int:
    # Under ZeRO-3 a parameter's own size is that of a placeholder.
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def peak_of(device: torch.device, precision: str) -> float | None:
    """Operations per second that the device can do at most: from its data sheet, or on a CPU as a matrix product shows."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return next((peak for part, peak in PEAKS.items() if part in name), None)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(PROBE, PROBE).to(dtype) for _ in range(2))
    left @ right
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2.0 * PROBE**3 / best
