"""Activations are computed twice where a recipe asks for it, and what is frozen makes no noise."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import OPTConfig, OPTForCausalLM, PreTrainedModel

from models.cpm_bee import CpmBee, CpmBeeConfig
from models.language_model import SmallConfig, last_states, make_language_model
from models.packing import pack
from pipelines.errors import BadInput
from pipelines.progress import Progress
from pipelines.stage import Work
from pipelines.training.loop import train
from pipelines.training.modes import compute_activations_twice, evaluating, training_mode
from pipelines.training.spec import Optimisation
from pipelines.training.speed import speed_up
from tests.training.toy import Toy, ToySamples

LAYERS = 2
IDS = torch.arange(10, 22).reshape(1, 12)


def qwen2() -> nn.Module:
    shape = SmallConfig(width=16, layers=LAYERS, heads=2, mlp_width=32, positions=64)
    return make_language_model(shape, vocabulary=40, seed=0)


def cpm_bee() -> nn.Module:
    torch.manual_seed(0)
    config = CpmBeeConfig(
        vocab_size=40, dim_model=16, dim_ff=24, num_layers=LAYERS, num_heads=2, dim_head=8,
        position_bias_num_buckets=8, position_bias_num_segment_buckets=80, position_bias_max_distance=16,
    )  # fmt: skip
    return CpmBee(config)


def opt() -> nn.Module:
    """With dropout in the layer itself, in attention, and in modules of its own."""
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=40, hidden_size=16, ffn_dim=32, num_hidden_layers=LAYERS, num_attention_heads=2,
        max_position_embeddings=64, word_embed_proj_dim=16, dropout=0.5, attention_dropout=0.5,
    )  # fmt: skip
    return OPTForCausalLM(config)


class Forwards:
    """How often the inner part of each layer began: the layer's own hooks stand outside of what is computed twice, and
    the second time torch stops as soon as it has what it needs, so that no hook at the end is reached."""

    def __init__(self, model: nn.Module) -> None:
        self.counts: Counter[str] = Counter()
        for name, module in model.named_modules():
            if name.endswith(("mlp", ".ffn.ffn")):
                module.register_forward_pre_hook(lambda *_, name=name: self.counts.update([name]))


def gradient(model: nn.Module) -> Tensor:
    """Of the states before the language model, through it."""
    torch.manual_seed(3)
    states = torch.randn(1, 12, 16, requires_grad=True)
    last_states(model, states, pack([5, 7]), IDS).square().sum().backward()
    assert states.grad is not None
    return states.grad


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("make", [qwen2, cpm_bee])
def test_each_layer_runs_forward_twice_and_gives_the_same_gradient(make: Any, frozen: bool) -> None:
    plain, twice = make().eval(), make().eval()
    if isinstance(plain, PreTrainedModel):
        for one in (plain, twice):
            one.set_attn_implementation("packed")
    for one in (plain, twice):
        one.requires_grad_(not frozen)
    compute_activations_twice(twice)
    training_mode(plain)
    training_mode(twice)
    once_counted, twice_counted = Forwards(plain), Forwards(twice)

    assert torch.equal(gradient(twice), gradient(plain))

    assert set(once_counted.counts.values()) == {1} and len(once_counted.counts) == LAYERS
    assert twice_counted.counts == dict.fromkeys(once_counted.counts, 2)


def trained(folder: Path, *, rates: dict[str, float], twice: bool) -> tuple[Counter[str], dict[str, Tensor]]:
    """How often each layer ran in a training of a model that comes as `from_pretrained` gives it; the trained weights."""
    toy = Toy().eval()
    forwards = Forwards(toy.language_model)
    optimisation = Optimisation(
        steps=2, batch_size=4, pack_tokens=96, warmup_steps=0, precision="fp32", zero_stage=0,
        learning_rates=rates, activation_checkpointing=twice,
    )  # fmt: skip
    work = Work(folder)
    work.out.mkdir(parents=True)
    result = train(
        toy, ToySamples(), pad=0, optimisation=optimisation, work=work, progress=Progress("toy", silent=True),
        what="toy",
    )  # fmt: skip
    return forwards.counts, result.weights


@pytest.mark.parametrize("rates", [{"visual": 1e-2}, {"visual": 1e-2, "language_model": 1e-3}])
def test_a_training_computes_activations_twice_though_the_model_came_in_evaluation_mode(
    rates: dict[str, float], tmp_path: Path
) -> None:
    once, expected = trained(tmp_path / "once", rates=rates, twice=False)
    twice, weights = trained(tmp_path / "twice", rates=rates, twice=True)

    assert set(once.values()) == {2} and len(once) == LAYERS
    assert set(twice.values()) == {4}
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_model_whose_layers_cannot_is_refused() -> None:
    with pytest.raises(BadInput, match="no layer of Linear can compute its activations twice"):
        compute_activations_twice(nn.Linear(2, 2))


@pytest.mark.parametrize("twice", [False, True])
def test_a_frozen_model_has_no_dropout_and_one_that_learns_has(twice: bool) -> None:
    def states(model: nn.Module) -> Tensor:
        embeddings = torch.ones(1, 12, 16, requires_grad=True)
        return model.get_decoder()(inputs_embeds=embeddings, use_cache=False).last_hidden_state  # type: ignore[operator]

    frozen = opt().requires_grad_(False)
    if twice:
        compute_activations_twice(frozen)
    training_mode(frozen)
    assert torch.equal(states(frozen), states(frozen))
    assert torch.equal(states(frozen), states(opt().eval()))

    learning = opt()
    if twice:
        compute_activations_twice(learning)
    training_mode(learning)
    assert not torch.equal(states(learning), states(learning))


def test_evaluation_is_for_the_moment_and_leaves_each_module_in_its_mode() -> None:
    toy = Toy()
    toy.language_model.requires_grad_(False)
    training_mode(toy)
    before = {name: module.training for name, module in toy.named_modules()}

    with evaluating(toy):
        assert not any(module.training for module in toy.modules())

    assert {name: module.training for name, module in toy.named_modules()} == before
    assert before["visual"] and not before["language_model"]


@pytest.mark.parametrize("switch", ["compile", "fused_kernels"])
def test_switches_for_models_of_transformers_are_refused_for_others(switch: str) -> None:
    asked = Optimisation(steps=1, batch_size=1, learning_rates={"": 1e-3}, **{switch: True})
    with pytest.raises(BadInput, match="CPM-Bee"):
        speed_up(cpm_bee(), asked)


def test_a_language_models_layers_are_compiled_where_asked() -> None:
    model = qwen2()
    speed_up(model, Optimisation(steps=1, batch_size=1, learning_rates={"": 1e-3}, compile=True))
    assert all(layer._compiled_call_impl is not None for layer in model.model.layers)
