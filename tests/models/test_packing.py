"""Samples in a pack never see each other, and are computed as if each were alone."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from models.language_model import supervised_losses
from models.packing import IMPLEMENTATION, PackingError, pack, packed_arguments, use_packed_attention

LENGTHS = (5, 1, 12, 7)
CPU_PATHS = ["eager", "sdpa", "flex_attention", IMPLEMENTATION]


def model(attention: str, *, key_heads: int = 2) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=key_heads, max_position_embeddings=64,
    )  # fmt: skip
    made = Qwen2ForCausalLM(config)
    made.set_attn_implementation(attention)
    return made


def row() -> torch.Tensor:
    return torch.randn(1, sum(LENGTHS), 32, generator=torch.Generator().manual_seed(1))


def states(network: Qwen2ForCausalLM, embeddings: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    arguments = packed_arguments(pack(lengths))
    found: torch.Tensor = network.model(
        inputs_embeds=embeddings, use_cache=False, **arguments
    ).last_hidden_state
    return found


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("attention", CPU_PATHS)
def test_each_sample_of_a_pack_is_computed_as_if_alone(attention: str, training: bool) -> None:
    network, alone = model(attention).train(training), model("eager").train(training)
    # On a CPU, flex attention has no backward pass, and runs as it is written: compiling it takes minutes.
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        together = states(network, row(), LENGTHS).split(LENGTHS, dim=1)
    for part, embeddings in zip(together, row().split(LENGTHS, dim=1), strict=True):
        expected = alone.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        assert torch.allclose(part, expected, atol=2e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa", IMPLEMENTATION])
def test_a_changed_sample_changes_no_other_and_gradients_stay_at_home(attention: str) -> None:
    network = model(attention).train()
    changed = row()
    changed[:, 6:18] += 1.0
    before, after = (states(network, one, LENGTHS).split(LENGTHS, dim=1) for one in (row(), changed))
    for number in (0, 1, 3):
        assert torch.equal(before[number], after[number])
    assert not torch.allclose(before[2], after[2], atol=1e-2)

    embeddings = row().requires_grad_()
    states(network, embeddings, LENGTHS)[:, 6:18].square().sum().backward()
    assert embeddings.grad is not None
    assert torch.count_nonzero(embeddings.grad[:, :6]) == torch.count_nonzero(embeddings.grad[:, 18:]) == 0
    assert torch.count_nonzero(embeddings.grad[:, 6:18])


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_gradients_of_a_pack_are_those_of_its_samples_one_by_one(heads: int) -> None:
    labels = torch.randint(0, 64, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(2))
    for start in pack(LENGTHS).bounds[:-1].tolist():
        labels[:, start] = -100
    packed, rows = model(IMPLEMENTATION, key_heads=heads), model("eager", key_heads=heads)
    together = supervised_losses(packed, row(), labels, pack(LENGTHS))
    one_by_one = torch.cat(
        [
            supervised_losses(rows, part, wanted)
            for part, wanted in zip(row().split(LENGTHS, dim=1), labels.split(LENGTHS, dim=1), strict=True)
        ]
    )
    assert torch.allclose(together, one_by_one, atol=1e-5)
    together.sum().backward()
    one_by_one.sum().backward()
    for (name, left), right in zip(packed.named_parameters(), rows.parameters(), strict=True):
        if left.grad is not None and right.grad is not None:
            assert torch.allclose(left.grad, right.grad, atol=1e-4), name


def test_the_guard_is_needed_a_mask_of_ones_lets_samples_see_each_other() -> None:
    network = model("sdpa").train()
    ones = torch.ones(1, sum(LENGTHS), dtype=torch.long)
    leaking = network.model(
        inputs_embeds=row(), attention_mask=ones, position_ids=pack(LENGTHS).positions, use_cache=False
    ).last_hidden_state
    assert not torch.allclose(leaking[:, 5:], states(network, row(), LENGTHS)[:, 5:], atol=1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("attention", ["flash_attention_2", IMPLEMENTATION])
def test_the_fused_kernels_part_samples_too(attention: str) -> None:
    if attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        pytest.skip("flash-attn is not installed")
    network = model(attention).to("cuda", torch.bfloat16)
    embeddings = row().to("cuda", torch.bfloat16)
    arguments = packed_arguments(pack(LENGTHS).to(torch.device("cuda")))
    together = network.model(inputs_embeds=embeddings, use_cache=False, **arguments).last_hidden_state
    for part, alone in zip(together.split(LENGTHS, dim=1), embeddings.split(LENGTHS, dim=1), strict=True):
        expected = network.model(inputs_embeds=alone, use_cache=False).last_hidden_state
        assert torch.allclose(part, expected, atol=5e-2)


def small(config: type[PreTrainedConfig], **more: Any) -> Any:
    shape = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0,
    }  # fmt: skip
    return AutoModelForCausalLM.from_config(config(**{**shape, **more}))


@pytest.mark.parametrize(
    ("config", "more"),
    [
        (MistralConfig, {"sliding_window": 8}),
        (Phi3Config, {"sliding_window": 8}),
        (Gemma3TextConfig, {"sliding_window": 8}),
        (Qwen2Config, {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}),
    ],
)
def test_a_window_shorter_than_a_sample_may_be_is_refused_before_training(
    config: type[PreTrainedConfig], more: dict[str, Any]
) -> None:
    with pytest.raises(PackingError, match="sliding_window = 8"):
        use_packed_attention(small(config, **more), 9)

    # Of samples that fit into it, nothing is out of any token's sight.
    fitting = small(config, **more)
    use_packed_attention(fitting, 8)
    fitting.model(inputs_embeds=row()[:, :8], use_cache=False, **packed_arguments(pack((8,))))


def test_a_window_that_no_layer_uses_is_no_hindrance() -> None:
    use_packed_attention(small(Qwen2Config, sliding_window=8), 9)
    use_packed_attention(
        small(Qwen2Config, use_sliding_window=True, sliding_window=8, max_window_layers=2), 9
    )


@pytest.mark.parametrize(
    ("config", "more", "said"),
    [
        (MistralConfig, {"sliding_window": 8}, "sliding_window = 8"),
        (GptOssConfig, {"sliding_window": None, "num_local_experts": 2, "num_experts_per_tok": 1}, "s_aux"),
        (Gemma2Config, {"attn_logit_softcapping": 50.0}, "softcap"),
        (Qwen2Config, {"attention_dropout": 0.1}, "dropout"),
    ],
)
def test_attention_of_another_kind_is_never_passed_over(
    config: type[PreTrainedConfig], more: dict[str, Any], said: str
) -> None:
    network = small(config, **more).train()
    network.set_attn_implementation(IMPLEMENTATION)
    with pytest.raises(PackingError, match=said):
        network.model(inputs_embeds=row(), use_cache=False, **packed_arguments(pack(LENGTHS)))
