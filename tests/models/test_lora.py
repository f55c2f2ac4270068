"""Adapters: they begin as nothing, are all that is trained, and travel apart or merged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from models.architecture import Lora
from models.language_model import SmallConfig, make_language_model
from models.lora import add_adapters, config_of, load_adapters, merged_state, save_adapters
from models.weights import WeightsError

CONFIG = Lora(rank=4, alpha=8, targets=["q_proj", "v_proj", "down_proj"])
IDS = torch.arange(10).reshape(1, 10)


def model() -> PreTrainedModel:
    return make_language_model(
        SmallConfig(width=16, layers=2, heads=2, mlp_width=32), vocabulary=40, seed=0
    ).eval()


def trained() -> PreTrainedModel:
    one = model()
    add_adapters(one, CONFIG)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in one.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return one


@torch.no_grad()
def logits(one: torch.nn.Module) -> torch.Tensor:
    return one(IDS).logits


def test_adapters_begin_as_nothing_and_are_all_that_is_trained() -> None:
    plain, adapted = model(), model()
    add_adapters(adapted, CONFIG)

    assert torch.equal(logits(adapted), logits(plain))
    assert type(adapted) is type(plain)
    learned = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(learned) == 2 * 3 * 2
    assert all("lora_" in name for name in learned)


def test_the_formula_is_w_x_and_alpha_over_rank_b_a_x() -> None:
    layer = trained().model.layers[0].self_attn.q_proj
    states = torch.randn(3, 16)

    base, a, b = layer.base_layer, layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.testing.assert_close(layer(states), base(states) + 8 / 4 * (states @ a.T @ b.T))


def test_a_saved_adapter_says_the_same_here_and_in_peft(tmp_path: Path) -> None:
    one = trained()
    save_adapters(one, CONFIG, tmp_path)

    here = model()
    load_adapters(here, tmp_path)
    there = PeftModel.from_pretrained(model(), str(tmp_path)).eval()

    assert torch.equal(logits(here), logits(one))
    torch.testing.assert_close(logits(there), logits(one))
    assert not list(tmp_path.glob("*.bin"))


def test_merged_it_is_a_plain_model_that_says_the_same() -> None:
    one, plain = trained(), model()

    plain.load_state_dict(merged_state(one))

    torch.testing.assert_close(logits(plain), logits(one), atol=1e-5, rtol=1e-4)
    assert config_of(plain) is None
    found = config_of(one)
    assert found is not None
    assert (found.rank, found.alpha, set(found.targets)) == (4, 8, set(CONFIG.targets))


def test_targets_that_do_not_exist_are_named() -> None:
    with pytest.raises(WeightsError, match="targets"):
        add_adapters(model(), Lora(targets=["nowhere"]))
