"""Muon for the weight matrices, AdamW for the rest, as one optimiser that DeepSpeed can hold.

Muon (Jordan 2024) orthogonalises the momentum of each matrix. It needs whole matrices, so no ZeRO stage
that flattens them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

RATE_RATIO = 3.0
"""Muon's learning rate over AdamW's, with updates scaled to AdamW's usual size."""


def parameter_groups(
    part: nn.Module, learning_rate: float, among: Collection[int] | None = None
) -> list[dict[str, Any]]:
    """The part's parameters as a group for Muon (matrices) and one for AdamW (embeddings, norms, biases).

    `among`: ids of the parameters that are meant; without it, all that are not frozen.
    """
    embeddings = {id(module.weight) for module in part.modules() if isinstance(module, nn.Embedding)}
    parameters = [p for p in part.parameters() if p.requires_grad and (among is None or id(p) in among)]
    matrices = [p for p in parameters if p.ndim == 2 and id(p) not in embeddings]
    chosen = {id(p) for p in matrices}
    others = [p for p in parameters if id(p) not in chosen]
    peak = learning_rate * RATE_RATIO
    return [
        {"params": matrices, "muon": True, "lr": peak, "peak": peak},
        {"params": others, "muon": False, "lr": learning_rate, "peak": learning_rate},
    ]


class MuonAdamW(torch.optim.Optimizer):
    """Two of torch's own optimisers over one list of groups and one state."""

    def __init__(
        self, groups: list[dict[str, Any]], *, betas: tuple[float, float], weight_decay: float
    ) -> None:
        super().__init__(groups, {})
        matrices, others = (
            [p for g in groups if g["muon"] is kind for p in g["params"]] for kind in (True, False)
        )
        self._inner = {
            True: torch.optim.Muon(
                matrices, momentum=betas[1], weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            False: torch.optim.AdamW(others, betas=betas, weight_decay=weight_decay),
        }
        self._share()

    def _share(self) -> None:
        """Let the inner optimisers work on this one's groups and state."""
        for kind, inner in self._inner.items():
            inner.param_groups = [group for group in self.param_groups if group["muon"] is kind]
            for group in inner.param_groups:
                for key, value in inner.defaults.items():
                    group.setdefault(key, value)
            inner.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], Tensor] | None = None) -> None:  # type: ignore[override]
        """Update all parameters. A closure is not supported: the trainer has its gradients already."""
        for inner in self._inner.values():
            inner.step()
