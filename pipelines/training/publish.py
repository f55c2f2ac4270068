"""From trained weights to a model folder, and from unusable weights to an error a person can act on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.generation import write_generation
from models.vision_language import VisionLanguageModel
from models.weights import WeightsError
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.model_card import card
from pipelines.model_card.origin import BASE, LICENSES
from pipelines.stage import Stage
from pipelines.training.spec import TrainingSpec


def put_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put trained weights, by parameter name, into the model, as float32."""
    model.float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])


def publish_model(
    model: VisionLanguageModel, weights: dict[str, Tensor], folder: Path, generation: Mapping[str, Any] | None = None
) -> None:  # fmt: skip
    """Write the model folder, and how it answers; under torchrun the first rank does, for all."""
    if int(os.environ.get("RANK", "0")) == 0:
        put_weights(model, weights)
        model.save(folder)
        if generation:
            write_generation(folder, generation)


def publish_card(
    model: VisionLanguageModel, stage: Stage[Any], what: str, languages: Sequence[str],
    spec: TrainingSpec, metrics: Mapping[str, Any], folder: Path,
) -> None:  # fmt: skip
    """Write the model's card beside its files; under torchrun the first rank does, for all.

    `metrics` are the stage's, with what `pipelines.model_card.origin` puts among them.
    """
    if int(os.environ.get("RANK", "0")) == 0:
        made = card.Made(
            stage=stage.name, code_version=stage.code_version, what=what, languages=languages, spec=spec,
            metrics=metrics, licenses=metrics[LICENSES], base=metrics[BASE],
        )  # fmt: skip
        card.write(model, made, folder)


@contextmanager
def weights_of(*tables: Path) -> Iterator[None]:
    """Check the tables' files before their weights are loaded, and name them where loading fails.

    Raises:
        BadInput: a file is missing, changed, or does not fit.
    """
    for table in tables:
        manifest.verify(table)
    try:
        yield
    except WeightsError as error:
        raise BadInput(
            str(error),
            where=", ".join(map(str, tables)),
            remedy="run the stage that makes these weights again",
        ) from None
