"""The parts of a model that a recipe trains or freezes by name.

Every parameter belongs to exactly one part:

    visual.encoder          the vision encoder (of BEiT-3: queries, language experts, and what is shared)
    visual.vision_experts   BEiT-3's vision branch, of `visual.encoder`; `freeze_vision_experts` keeps it as it is
    visual.bridge           from the encoder's width to the language model's
    visual.moe              Parrot's experts and their router
    language_model          the language model; under LoRA, its adapters alone
    frozen.language_model   the language model's own weights under LoRA: nothing trains them

A recipe names what it trains by the beginning of its parameters' names: `visual`, `visual.bridge`, `language_model`.
The longest that fits counts. What a model keeps frozen itself (LoRA's base, vision experts) stays so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import nn

NamedParameter = tuple[str, nn.Parameter]

_VISION_EXPERT = re.compile(r"visual\.encoder\.(.*\.A\.|vision_embed\.)")
_LORA = ".lora_"


class Trained(NamedTuple):
    """A part under training."""

    rate: float
    """Peak learning rate."""
    parameters: list[NamedParameter]


def part_of(name: str, *, adapters: bool) -> str:
    """The part of a parameter by its name; `adapters`: whether the language model has LoRA."""
    if name.startswith("language_model."):
        return "language_model" if not adapters or _LORA in name else "frozen.language_model"
    if _VISION_EXPERT.match(name):
        return "visual.vision_experts"
    return ".".join(name.split(".")[:2])


def parts(model: nn.Module) -> dict[str, list[NamedParameter]]:
    """All parameters by part; a tied parameter counts once."""
    named = list(model.named_parameters())
    adapters = any(_LORA in name for name, _ in named)
    found: dict[str, list[NamedParameter]] = {}
    for name, parameter in named:
        found.setdefault(part_of(name, adapters=adapters), []).append((name, parameter))
    return found


def rate_of(name: str, rates: Mapping[str, float]) -> float | None:
    """The rate of a parameter: of the longest beginning of its name, up to a dot, that has one."""
    fitting = [part for part in rates if name.startswith(part + ".")]
    return rates[max(fitting, key=len)] if fitting else None


def trained_parts(model: nn.Module, rates: Mapping[str, float]) -> dict[str, Trained]:
    """The parts that `rates` (name -> peak learning rate) trains, without what the model itself keeps frozen.

    Raises:
        KeyError: a name fits nothing that can be trained in this model.
    """
    found = parts(model)
    trained: dict[str, Trained] = {}
    for part, parameters in found.items():
        open_ones = [(name, one) for name, one in parameters if one.requires_grad]
        chosen = [(name, one) for name, one in open_ones if rate_of(name, rates) is not None]
        if chosen:
            trained[part] = Trained(rate_of(chosen[0][0], rates) or 0.0, chosen)
    names = [name for one in trained.values() for name, _ in one.parameters]
    if unknown := sorted(rate for rate in rates if not any(name.startswith(rate + ".") for name in names)):
        raise KeyError(
            f"there is nothing to train in {', '.join(unknown)}; this model has {', '.join(sorted(found))}"
        )
    return trained
