"""BEiT-3 with queries: against the formula of its papers, written out token by token."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from models.architecture import Beit3Encoder
from models.beit3 import FIRST_POSITION, Beit3, Multiway

CONFIG = Beit3Encoder(
    image_size=32, patch_size=16, queries=5, width=16, layers=2, heads=2, mlp_width=24, text_positions=12
)
IMAGE_TOKENS = 5


@pytest.fixture(scope="module")
def encoder() -> Beit3:
    torch.manual_seed(0)
    encoder = Beit3(CONFIG).eval()
    # Every weight differs from its twin and from where it starts, so that a swap would show.
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return encoder


def expert(module: nn.Module, token: int) -> nn.Module:
    assert isinstance(module, Multiway)
    return module.A if token < IMAGE_TOKENS else module.B


def literal(encoder: Beit3, pixels: Tensor) -> Tensor:
    """One image (3, 32, 32): each token's state computed apart from the others, with the expert of its kind."""
    patches = nn.functional.conv2d(
        pixels[None], encoder.vision_embed.proj.weight, encoder.vision_embed.proj.bias, stride=16
    )[0].flatten(1).T  # fmt: skip
    image = [encoder.vision_embed.cls_token[0, 0], *patches]
    states = [
        *(
            token + encoder.encoder.embed_positions["A"].weight[FIRST_POSITION + place]
            for place, token in enumerate(image)
        ),
        *(
            token + encoder.encoder.embed_positions["B"].weight[FIRST_POSITION + place]
            for place, token in enumerate(encoder.queries)
        ),
    ]
    count, head = len(states), CONFIG.width // CONFIG.heads
    for layer in encoder.encoder.layers:
        normed = [expert(layer.self_attn_layer_norm, t)(states[t]) for t in range(count)]
        query, key, value = (
            [expert(projection, t)(normed[t]) for t in range(count)]
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
        )
        after = []
        for t in range(count):
            heads = []
            for h in range(CONFIG.heads):
                part = slice(h * head, (h + 1) * head)
                scores = torch.stack([query[t][part] @ key[s][part] for s in range(count)]) / math.sqrt(head)
                shares = scores.softmax(0)
                heads.append(sum(shares[s] * value[s][part] for s in range(count)))
            joined = expert(layer.self_attn.inner_attn_ln, t)(torch.cat(heads))
            after.append(states[t] + expert(layer.self_attn.out_proj, t)(joined))
        states = []
        for t in range(count):
            mlp = expert(layer.ffn, t)
            hidden = nn.functional.gelu(mlp.fc1(expert(layer.final_layer_norm, t)(after[t])))
            states.append(after[t] + mlp.fc2(mlp.ffn_layernorm(hidden)))
    return torch.stack([expert(encoder.encoder.layer_norm, t)(states[t]) for t in range(IMAGE_TOKENS, count)])


def test_the_states_of_the_queries_are_those_of_the_formula(encoder: Beit3) -> None:
    pixels = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        seen = encoder(pixels)
        expected = torch.stack([literal(encoder, one) for one in pixels])

    assert seen.shape == (3, CONFIG.queries, CONFIG.width)
    torch.testing.assert_close(seen, expected, atol=2e-5, rtol=1e-4)


def test_image_tokens_use_the_vision_expert_and_queries_the_language_expert(encoder: Beit3) -> None:
    pixels = torch.randn(1, 3, 32, 32)
    last = encoder.encoder.layers[-1]
    before = encoder(pixels)
    with torch.no_grad():
        last.ffn.A.fc1.weight.add_(1.0)
        # In the last layer an image token's own MLP reaches no query any more.
        assert torch.equal(encoder(pixels), before)
        last.ffn.A.fc1.weight.sub_(1.0)
        encoder.encoder.layers[0].ffn.A.fc1.weight.add_(1.0)
        assert not torch.allclose(encoder(pixels), before)
        encoder.encoder.layers[0].ffn.A.fc1.weight.sub_(1.0)


def test_first_and_last_query_begin_as_the_marks_around_a_text() -> None:
    encoder = Beit3(CONFIG)
    others = encoder.queries[1:-1].clone()
    begin, end = torch.full((16,), 0.5), torch.full((16,), -0.5)

    encoder.start_queries(begin, end)

    assert torch.equal(encoder.queries[0], begin)
    assert torch.equal(encoder.queries[-1], end)
    assert torch.equal(encoder.queries[1:-1], others)
    assert others.std() < 0.05


def test_the_published_size_has_seven_tenths_of_a_billion_parameters() -> None:
    with torch.device("meta"):
        encoder = Beit3(Beit3Encoder())

    # 0.6 B here; with the 64,010 text embeddings, of which two become queries, 0.67 B: the paper's "0.7 B".
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert count == pytest.approx(0.608e9, rel=0.01)
    assert count + 64_010 * 1024 == pytest.approx(0.7e9, rel=0.05)
