"""How modules behave in a training: which are in training mode, and which compute their activations twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from pipelines.errors import BadInput


def training_mode(model: nn.Module) -> None:
    """Training mode where something is trained; what is frozen stays in evaluation mode, so that no dropout makes noise of it.

    Only layers that compute their activations twice are always in training mode, since transformers asks that of them.
    """
    model.train()
    for module in model.modules():
        if not _learns(module):
            module.training = bool(getattr(module, "gradient_checkpointing", False))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for the moment; afterwards every module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def compute_activations_twice(model: nn.Module) -> None:
    """Let the language model's layers keep their inputs alone, and compute the rest anew in the backward pass.

    Raises:
        BadInput: it has no layers that can.
    """
    language_model: Any = getattr(model, "language_model", model)
    layers: list[Any] = [
        one for one in language_model.modules() if isinstance(one, GradientCheckpointingLayer)
    ]
    if not layers:
        raise BadInput(
            f"no layer of {type(language_model).__name__} can compute its activations twice",
            where="optimisation.activation_checkpointing",
            remedy="set it to false (in a system's recipe: gradient_checkpointing)",
        )
    for layer in layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = _learned_twice if _learns(layer) else _frozen_twice


def _learned_twice(forward: Callable[..., Any], *states: Any) -> Any:
    return checkpoint(forward, *states, use_reentrant=False)


def _frozen_twice(forward: Callable[..., Any], *states: Any) -> Any:
    # The layer is in training mode only to come here: its own dropout must not take it for one that learns.
    layer = forward.args[0]  # type: ignore[attr-defined]

    def compute(*given: Any) -> Any:
        layer.training = False
        try:
            return forward(*given)
        finally:
            layer.training = True

    return checkpoint(compute, *states, use_reentrant=False)


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
