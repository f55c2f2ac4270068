"""Batches on their way to the model: pinned whole for a GPU, refused where a model cannot take packed rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from pipelines.errors import BadInput
from pipelines.progress import Progress
from pipelines.stage import Work
from pipelines.training.loop import train
from pipelines.training.samples import collate
from pipelines.training.spec import Optimisation
from tests.training.toy import Toy, ToySamples


def tensors(one: Any) -> Iterator[Tensor]:
    """All tensors of a batch, at any depth."""
    if isinstance(one, Tensor):
        yield one
    elif isinstance(one, tuple):
        for part in one:
            yield from tensors(part)
    elif is_dataclass(one):
        for field in fields(one):
            yield from tensors(getattr(one, field.name))


@pytest.mark.parametrize("packed", [False, True])
def test_the_data_loader_pins_every_tensor_of_a_batch(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[Tensor] = []

    def pin(tensor: Tensor, *_: Any) -> Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    samples = ToySamples()
    batch = collate([samples.sample(index, 0) for index in range(4)], pad=0, groups=("toy/en", "toy/zh"), packed=packed)  # fmt: skip

    (loaded,) = pin_memory([batch])

    found = list(tensors(loaded))
    assert len(found) == len(list(tensors(batch))) >= (12 if packed else 7)
    assert {id(one) for one in found} == {id(one) for one in pinned}
    assert all(torch.equal(one, other) for one, other in zip(found, tensors(batch), strict=True))
    assert (loaded.tokens, loaded.images) == (batch.tokens, batch.images)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"sliding_window": 8, "layer_types": ["sliding_attention"] * 2}, "sliding_window = 8"),
        ({"attention_dropout": 0.1}, "dropout"),
    ],
)
def test_a_model_that_packed_rows_cannot_be_computed_for_is_refused(
    more: dict[str, Any], said: str, tmp_path: Path
) -> None:
    toy = Toy()
    for name, value in more.items():
        setattr(toy.language_model.config, name, value)
        for layer in toy.language_model.model.layers:
            setattr(layer.self_attn, name, value)
    work = Work(tmp_path)
    work.out.mkdir(parents=True)
    optimisation = Optimisation(
        steps=1, batch_size=4, pack_tokens=96, precision="fp32", zero_stage=0, learning_rates={"language_model": 1e-3}
    )  # fmt: skip
    with pytest.raises(BadInput, match=said) as error:
        train(
            toy, ToySamples(), pad=0, optimisation=optimisation, work=work,
            progress=Progress("toy", silent=True), what="toy",
        )  # fmt: skip
    assert error.value.where == "optimisation.pack_tokens"
