"""The parts of a model that a recipe trains or freezes by name.

Every parameter belongs to exactly one part:

    visual.encoder          the vision encoder (of BEiT-3: queries, language experts, and what is shared)
    visual.vision_experts   BEiT-3's vision branch, which Muffin's published training keeps frozen
    visual.bridge           from the encoder's width to the language model's
    visual.moe              Parrot's experts and their router
    language_model          the language model; under LoRA, its adapters alone
    frozen.language_model   the language model's own weights under LoRA: nothing trains them

A recipe names a part, or several by their common beginning: `visual` is all `visual.*`. The longest name counts.
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


def trained_parts(model: nn.Module, rates: Mapping[str, float]) -> dict[str, Trained]:
    """The parts that `rates` (name -> peak learning rate) trains; a rate of 0 keeps a part frozen.

    Raises:
        KeyError: a name fits no part of this model.
    """
    found = parts(model)
    trained: dict[str, Trained] = {}
    used: set[str] = set()
    for part, parameters in found.items():
        names = [name for name in rates if part == name or part.startswith(name + ".")]
        if not names:
            continue
        name = max(names, key=len)
        used.update(names)
        if rates[name] > 0:
            trained[part] = Trained(rates[name], parameters)
    if unknown := sorted(set(rates) - used):
        raise KeyError(f"no part is called {', '.join(unknown)}; this model has {', '.join(sorted(found))}")
    return trained
