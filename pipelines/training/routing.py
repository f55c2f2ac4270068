"""How the experts are used, by language: Parrot's Fig. 5c, while a model learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

PREFIX = "experts: "
"""Before `language/expert` in the name of a figure; experts are counted from 1."""
POINTS = 1000
"""Steps at most that are noted: figures of every step of a long training would outgrow its losses."""
LAST_SHARE = 0.1
"""Of the noted steps, over which the published weights are averaged."""


class Routing:
    """The mean weights of the experts over a step's images, by language.

    Each step's own, so that they are the same however often a training was stopped.
    """

    def __init__(self, groups: Sequence[str], experts: int, device: torch.device, steps: int) -> None:
        """`groups`: `source/language`, as the losses are told apart."""
        languages = [group.rpartition("/")[2] for group in groups]
        self.languages = sorted(set(languages))
        self._of_group = torch.tensor([self.languages.index(one) for one in languages], device=device)
        self._shape = (len(self.languages), experts + 1)
        self._device = device
        self._every = max(1, steps // POINTS)

    @classmethod
    def of(cls, model: nn.Module, groups: Sequence[str], device: torch.device, steps: int) -> Routing | None:
        """For a model with experts; none for others."""
        moe: Any = getattr(getattr(model, "visual", None), "moe", None)
        return None if moe is None else cls(groups, int(moe.config.experts), device, steps)

    def no_sums(self) -> Tensor:
        """(languages, experts + 1) of zeros; the last column counts images."""
        return torch.zeros(self._shape, dtype=torch.float64, device=self._device)

    def count(self, sums: Tensor, weights: Tensor, groups: Tensor) -> None:
        """Add a batch's weights (images, experts), whose images are of these groups (images), to the sums."""
        values = torch.cat((weights.double(), torch.ones_like(weights[:, :1], dtype=torch.float64)), dim=1)
        sums.index_add_(0, self._of_group[groups], values)

    def figures(self, step: int, sums: Sequence[float]) -> dict[str, float]:
        """The step's means by name, of the sums over all ranks; none for a step that is not noted."""
        if step % self._every:
            return {}
        found = {}
        for row, language in enumerate(self.languages):
            *weights, images = sums[row * self._shape[1] : (row + 1) * self._shape[1]]
            for number, weight in enumerate(weights if images else (), start=1):
                found[f"{PREFIX}{language}/{number}"] = round(weight / images, 6)
        return found


def expert_use(columns: Mapping[str, Sequence[float | None]]) -> dict[str, list[float]]:
    """The experts' mean weights at the end of a training, by language, from the figures of its steps."""
    found: dict[str, list[float]] = {}
    for name, values in columns.items():
        noted = [value for value in values if value is not None]
        if name.startswith(PREFIX) and noted:
            last = noted[-max(1, round(len(noted) * LAST_SHARE)) :]
            language = name.removeprefix(PREFIX).rpartition("/")[0]
            found.setdefault(language, []).append(round(sum(last) / len(last), 4))
    return found
