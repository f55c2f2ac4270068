"""Switches that make a training faster or smaller without changing what it computes, each for its own measurement."""

from __future__ import annotations

import importlib.util

import torch
from torch import nn
from transformers import PreTrainedModel

from pipelines.errors import BadInput
from pipelines.training.modes import compute_activations_twice
from pipelines.training.spec import Optimisation


def speed_up(model: nn.Module, optimisation: Optimisation) -> nn.Module:
    """Turn on what the recipe asks for, in place; return the model.

    Raises:
        BadInput: fused kernels or compiled layers are asked for where there are none, or activations twice of a model that cannot.
    """
    if optimisation.activation_checkpointing:
        compute_activations_twice(model)
    if not (optimisation.fused_kernels or optimisation.compile):
        return model
    language_model = next((part for part in model.modules() if isinstance(part, PreTrainedModel)), None)
    if language_model is None:
        raise BadInput(
            "fused_kernels and compile are for the language models of transformers; this one (CPM-Bee) is this project's",
            where="optimisation.fused_kernels, optimisation.compile",
            remedy="set both to false",
        )
    if optimisation.fused_kernels:
        _use_liger(language_model)
    if optimisation.compile:
        for layer in language_model.model.layers:
            layer.compile()
    return model


def _use_liger(language_model: PreTrainedModel) -> None:
    """Norms, rotary positions and gated layers by Liger's kernels; not its head: ours runs on supervised positions only."""
    if not torch.cuda.is_available() or importlib.util.find_spec("liger_kernel") is None:
        raise BadInput(
            "fused_kernels wants a GPU, and the package liger-kernel",
            where="optimisation.fused_kernels",
            remedy="set it to false, or `pip install liger-kernel` on a machine with a GPU",
        )
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    _apply_liger_kernel_to_instance(
        model=language_model, fused_linear_cross_entropy=False, cross_entropy=False
    )
