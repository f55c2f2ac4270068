"""Low-rank adapters in a language model, by peft: W x + (alpha / rank) B A x, with W as it was (Hu et al. 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models import tensors
from models.architecture import Lora
from models.weights import WeightsError, read_json

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG_FILE = "adapter_config.json"
_MARK = ".lora_"


def add_adapters(model: nn.Module, config: Lora) -> None:
    """Put adapters beside the layers that `config.targets` names, and freeze everything else in `model`.

    Their B begins at zero, so the model says what it said before. The model keeps its class and its layers'
    places: only the targets are wrapped.

    Raises:
        WeightsError: no layer is called so.
    """
    from peft import LoraConfig, inject_adapter_in_model  # slow to import, and most models have no adapters

    wanted = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=config.targets
    )
    try:
        inject_adapter_in_model(wanted, model)
    except ValueError as error:
        raise WeightsError(
            f"no layer of the language model fits: {error}", where="language_model.lora.targets"
        ) from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_MARK in name)


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' weights by peft's published names (`base_model.model.<layer>.lora_A.weight`)."""
    return {
        "base_model.model." + name.replace(".default.", "."): value
        for name, value in model.state_dict().items()
        if _MARK in name
    }


def save_adapters(model: nn.Module, config: Lora, folder: Path, *, base: str = "") -> None:
    """Write the adapters as a folder that peft reads; `base` names the model that they belong to."""
    from peft import LoraConfig

    folder.mkdir(parents=True, exist_ok=True)
    tensors.save(folder / ADAPTER_FILE, adapter_state(model))
    LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=config.targets,
        task_type="CAUSAL_LM", base_model_name_or_path=base,
    ).save_pretrained(str(folder))  # fmt: skip


def load_adapters(model: nn.Module, folder: Path) -> None:
    """Add the adapters of a folder to a model, with their weights.

    Raises:
        WeightsError: a file is missing or does not fit this model.
    """
    found = read_json(folder / ADAPTER_CONFIG_FILE)
    config = Lora(
        rank=found["r"], alpha=found["lora_alpha"], dropout=found["lora_dropout"],
        targets=sorted(found["target_modules"]),
    )  # fmt: skip
    add_adapters(model, config)
    state = {
        name.removeprefix("base_model.model.")
        .replace("lora_A.weight", "lora_A.default.weight")
        .replace("lora_B.weight", "lora_B.default.weight"): value
        for name, value in tensors.load_file(folder / ADAPTER_FILE).items()
    }
    wanted = {name for name in model.state_dict() if _MARK in name}
    if state.keys() != wanted:
        raise WeightsError(
            f"these adapters are for another model: {sorted(state.keys() ^ wanted)[:3]}", where=folder
        )
    model.load_state_dict(state, strict=False)


def config_of(model: nn.Module) -> Lora | None:
    """The adapters that a model has, if any."""
    wrapped: list[tuple[str, Any]] = [
        (name, module) for name, module in model.named_modules() if hasattr(module, "base_layer")
    ]
    if not wrapped:
        return None
    first = wrapped[0][1]
    dropout: Any = first.lora_dropout["default"]
    return Lora(
        rank=first.r["default"], alpha=first.lora_alpha["default"], dropout=getattr(dropout, "p", 0.0),
        targets=sorted({name.rpartition(".")[2] for name, _ in wrapped}),
    )  # fmt: skip


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the plain model that says the same: W + (alpha / rank) B A, by the plain model's names."""
    state = {
        name.replace(".base_layer.", "."): value
        for name, value in model.state_dict().items()
        if _MARK not in name
    }
    for name, module in model.named_modules():
        if hasattr(module, "base_layer"):
            wrapped: Any = module
            state[f"{name}.weight"] = state[f"{name}.weight"] + wrapped.get_delta_weight("default")
    return state
