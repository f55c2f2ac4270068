"""The parts of a model that a recipe trains or freezes by name.

Every parameter belongs to exactly one part:

    visual.encoder          the vision encoder (of BEiT-3: queries, language experts, and what is shared)
    visual.vision_experts   BEiT-3's vision branch, of `visual.encoder`; `freeze_vision_experts` keeps it as it is
    visual.bridge           from the encoder's width to the language model's
    visual.moe              Parrot's experts and their router
    language_model          the language model; under LoRA, its adapters alone
    frozen.language_model   the language model's own weights under LoRA: nothing trains them

A recipe names what it trains by these parts, or by the beginning of its parameters' names: `visual`, `visual.bridge`,
`visual.encoder.queries`, `language_model`. For each parameter the longest that fits counts. What a model keeps frozen
itself (LoRA's base, vision experts) stays so.
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
    """What is trained of a part."""

    rates: dict[float, list[NamedParameter]]
    """Peak learning rate -> the parameters that have it."""

    @property
    def parameters(self) -> list[NamedParameter]:
        """All of them."""
        return [one for chosen in self.rates.values() for one in chosen]


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
    """The parts that `rates` (name -> peak learning rate) trains, without what the model itself keeps frozen.

    Raises:
        KeyError: a name fits nothing that can be trained in this model, or others that fit longer leave it nothing.
    """
    trained: dict[str, Trained] = {}
    open_parts, used = [], set()
    for part, parameters in parts(model).items():
        chosen: dict[float, list[NamedParameter]] = {}
        open_ones = [(name, one) for name, one in parameters if one.requires_grad]
        for name, one in open_ones:
            if (best := _longest(name, part, rates)) is not None:
                chosen.setdefault(rates[best], []).append((name, one))
                used.add(best)
        if open_ones:
            open_parts.append(part)
        if chosen:
            trained[part] = Trained(chosen)
    if unused := sorted(rates.keys() - used):
        raise KeyError(
            f"there is nothing to train in {', '.join(unused)}; of this model can be trained: {', '.join(sorted(open_parts))}"
        )
    return trained


def _longest(name: str, part: str, rates: Mapping[str, float]) -> str | None:
    """The longest of the rates' names that fits a parameter: its own, a beginning of it up to a dot, or its part's."""
    fitting = [rate for rate in rates if rate in (name, part) or name.startswith(rate + ".")]
    return max(fitting, key=len, default=None)
