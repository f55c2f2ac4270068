"""Which layer of CLIP the bridge gets: against transformers' hidden states."""

from __future__ import annotations

import pytest
import torch
from transformers import ChineseCLIPVisionConfig, ChineseCLIPVisionModel, CLIPVisionConfig, CLIPVisionModel

from models.architecture import Bridge, ClipEncoder, Visual
from models.clip_vision import ClipVision
from models.visual import make_visual_module

SIZES = {"image_size": 28, "patch_size": 14}


@pytest.mark.parametrize("family", ["openai", "chinese"])
@pytest.mark.parametrize("layer", [-1, -2, 1])
def test_the_states_are_those_of_the_layer_that_is_named(family: str, layer: int) -> None:
    make_config, make_model = {
        "openai": (CLIPVisionConfig, CLIPVisionModel),
        "chinese": (ChineseCLIPVisionConfig, ChineseCLIPVisionModel),
    }[family]
    torch.manual_seed(0)
    reference = make_model(
        make_config(
            **SIZES, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
            hidden_act="quick_gelu",
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    ours = ClipVision(
        ClipEncoder(family=family, **SIZES, width=16, layers=3, heads=2, mlp_width=32, layer=layer)
    ).eval()
    state = reference.state_dict()
    ours.load_state_dict({name: state[name] for name in ours.state_dict()})
    pixels = torch.randn(2, 3, 28, 28)

    with torch.no_grad():
        expected = reference(pixels, output_hidden_states=True).hidden_states[layer]
        torch.testing.assert_close(ours(pixels), expected)


def test_layers_above_the_chosen_one_are_not_built() -> None:
    clip = ClipVision(ClipEncoder(**SIZES, width=16, layers=5, heads=2, mlp_width=32, layer=-2))

    assert len(clip.encoder.layers) == 4


@pytest.mark.parametrize(("keep_cls", "tokens"), [(False, 4), (True, 5)])
def test_the_cls_state_is_kept_where_the_recipe_says(keep_cls: bool, tokens: int) -> None:
    encoder = ClipEncoder(**SIZES, width=16, layers=2, heads=2, mlp_width=32, keep_cls=keep_cls)
    module = make_visual_module(Visual(encoder=encoder, bridge=Bridge(kind="mlp")), 8, seed=0)

    seen = module(torch.zeros(2, 3, 28, 28, dtype=torch.uint8))

    assert module.tokens == tokens
    assert module.placed(seen).shape == (2, tokens, 8)
    assert torch.equal(module.placed(seen)[:, -4:], seen[:, 1:])


def test_the_published_encoder_gives_577_tokens_in_parrot_and_576_in_llava() -> None:
    assert ClipEncoder(keep_cls=True).tokens == 577
    assert ClipEncoder().tokens == 576
