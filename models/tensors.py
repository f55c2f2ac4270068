"""Tensors in safetensors files: read whole, written so that equal tensors give equal bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from models.weights import INDEX_FILE, WEIGHTS_FILE, WeightsError, read_json, require


def load(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's `model.safetensors`, or of the parts that its index names.

    Raises:
        WeightsError: a file is missing, or is no whole safetensors file.
    """
    index = folder / INDEX_FILE
    parts = sorted(set(read_json(index)["weight_map"].values())) if index.is_file() else [WEIGHTS_FILE]
    require(folder, parts)
    tensors: dict[str, Tensor] = {}
    for part in parts:
        tensors.update(load_file(folder / part))
    return tensors


def load_file(path: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file.

    Raises:
        WeightsError: it is no whole safetensors file.
    """
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise WeightsError(
            f"this is no whole safetensors file: {error}", where=path, remedy="copy the file again"
        ) from error


def save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file that depends on the tensors alone: names sorted, memory contiguous."""
    ordered = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(ordered, path, metadata={"format": "pt"})


def load_into(
    module: nn.Module, tensors: Mapping[str, Tensor], *, where: str | Path, assign: bool = False
) -> None:
    """Load `tensors` as the whole state of `module`; `assign`: they become its weights, so that it may be on the meta device.

    Raises:
        WeightsError: names are missing or left over, or a shape differs.
    """
    try:
        module.load_state_dict(dict(tensors), strict=True, assign=assign)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise WeightsError(
            "these weights do not fit the architecture: " + " ".join(line.strip() for line in lines[1:4]),
            where=where,
            remedy="the config and the weights must come from the same model",
        ) from error


def cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Let the weights be of another type, in place. Buffers stay: rounded, rotary frequencies would put words elsewhere."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
