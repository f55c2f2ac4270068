"""Which rate each parameter gets, by the names that a recipe writes."""

from __future__ import annotations

import pytest
import torch

from models.architecture import Beit3Encoder, Visual
from models.language_model import SmallConfig, make_language_model
from models.parts import trained_parts
from models.visual import make_visual_module

ENCODER = {
    "image_size": 32, "patch_size": 16, "queries": 5, "width": 16, "layers": 2, "heads": 2, "mlp_width": 24,
    "text_positions": 12,
}  # fmt: skip


def model(*, freeze_vision_experts: bool = False) -> torch.nn.Module:
    encoder = Beit3Encoder(**ENCODER, freeze_vision_experts=freeze_vision_experts)
    shape = SmallConfig(width=16, layers=1, heads=2, mlp_width=24)
    return torch.nn.ModuleDict(
        {
            "visual": make_visual_module(Visual(encoder=encoder), 16, seed=0),
            "language_model": make_language_model(shape, vocabulary=20, seed=0),
        }
    )


def rates_of(one: torch.nn.Module, rates: dict[str, float]) -> dict[str, float]:
    """Parameter -> its rate."""
    return {
        name: rate
        for part in trained_parts(one, rates).values()
        for rate, chosen in part.rates.items()
        for name, _ in chosen
    }


def test_a_rate_for_one_parameter_is_not_that_of_its_whole_part() -> None:
    one = model()

    found = rates_of(one, {"visual.encoder": 1e-5, "visual.encoder.queries": 1e-4})

    assert found.pop("visual.encoder.queries") == 1e-4
    assert set(found.values()) == {1e-5}
    of_encoder = {name for name, _ in one.named_parameters() if name.startswith("visual.encoder.")}
    assert found.keys() == of_encoder - {"visual.encoder.queries"}


def test_the_longest_name_that_fits_holds_whatever_the_order() -> None:
    rates = {"visual": 1e-5, "visual.encoder.encoder": 2e-5, "visual.encoder.encoder.layers.1": 3e-5}
    for told in (rates, dict(reversed(rates.items()))):
        found = rates_of(model(), told)
        assert found["visual.bridge.weight"] == 1e-5
        assert {rate for name, rate in found.items() if ".layers.0." in name} == {2e-5}
        assert {rate for name, rate in found.items() if ".layers.1." in name} == {3e-5}


def test_vision_experts_can_be_named() -> None:
    found = rates_of(model(), {"visual.vision_experts": 1e-5, "visual.bridge": 1e-3})

    experts = {name for name, rate in found.items() if rate == 1e-5}
    assert experts and all(".A." in name or "vision_embed" in name for name in experts)
    assert {name for name, rate in found.items() if rate == 1e-3} == {
        "visual.bridge.weight",
        "visual.bridge.bias",
    }
    apart = rates_of(model(), {"visual.encoder": 1e-4, "visual.vision_experts": 1e-5})
    assert {name for name, rate in apart.items() if rate == 1e-5} == experts


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({"visual.bridg": 1e-3}, "visual.bridg;"),
        # Nothing is left to it.
        ({"visual": 1e-3, "visual.bridge": 1e-3, "visual.encoder": 1e-3}, "visual;"),
    ],
)  # fmt: skip
def test_a_name_that_trains_nothing_is_an_error(rates: dict[str, float], said: str) -> None:
    with pytest.raises(KeyError, match=f"nothing to train in {said}") as error:
        trained_parts(model(), rates)
    assert "visual.vision_experts" in str(error.value)


def test_what_the_model_keeps_frozen_cannot_be_named_and_is_not_offered() -> None:
    with pytest.raises(KeyError) as error:
        trained_parts(model(freeze_vision_experts=True), {"visual.vision_experts": 1e-5})
    assert "can be trained: language_model, visual.bridge, visual.encoder" in str(error.value)
