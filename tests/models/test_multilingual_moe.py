"""Parrot's experts: both forms against their formulas, and which words route which image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.architecture import MultilingualExperts
from models.chat import IGNORED
from models.multilingual_moe import MultilingualMoE
from models.vision_language import prompts_of_images

WIDTH = 8


def with_random_weights(config: MultilingualExperts) -> MultilingualMoE:
    torch.manual_seed(1)
    moe = MultilingualMoE(config, WIDTH)
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return moe


def literal_routing(moe: MultilingualMoE, tokens: Tensor, words: Tensor) -> Tensor:
    """Of one image (tokens, width) and its prompt (words, width), as Parrot's section 4.3 writes it."""
    scores = tokens[0:1] @ words.T / WIDTH**0.5
    guided = scores.softmax(-1) @ words
    return (guided @ moe.gate.weight.T).softmax(-1)[0]


@pytest.mark.parametrize("top_k", [None, 2])
def test_the_papers_form_is_the_input_and_alpha_times_the_chosen_experts(top_k: int | None) -> None:
    moe = with_random_weights(MultilingualExperts(experts=6, alpha=0.7, top_k=top_k, mlp_width=12))
    tokens, words = torch.randn(1, 5, WIDTH), torch.randn(4, WIDTH)

    turned, weights = moe(tokens, words, torch.ones(1, 4, dtype=torch.bool))

    routing = literal_routing(moe, tokens[0], words)
    chosen = routing.topk(top_k or 6).indices.tolist()
    mixed = torch.zeros(5, WIDTH)
    for index in chosen:
        expert = moe.experts[index]
        hidden = torch.nn.functional.silu(tokens[0] @ expert.up_proj.weight.T + expert.up_proj.bias)
        mixed += routing[index] * (hidden @ expert.down_proj.weight.T + expert.down_proj.bias)
    torch.testing.assert_close(turned[0], tokens[0] + 0.7 * mixed)
    assert weights.count_nonzero() == (top_k or 6)
    assert [index for index in range(6) if weights[0, index] > 0] == sorted(chosen)


def test_the_released_form_is_all_gated_experts_and_a_tenth_of_the_input() -> None:
    moe = with_random_weights(MultilingualExperts(form="released", mlp_width=12))
    tokens, words = torch.randn(1, 5, WIDTH), torch.randn(3, WIDTH)

    turned, _ = moe(tokens, words, torch.ones(1, 3, dtype=torch.bool))

    routing = literal_routing(moe, tokens[0], words)
    expected = 0.1 * tokens[0]
    for index, expert in enumerate(moe.experts):
        gate, up, down = (expert.gate_proj.weight, expert.up_proj.weight, expert.down_proj.weight)
        expected = expected + routing[index] * (
            (torch.nn.functional.silu(tokens[0] @ gate.T) * (tokens[0] @ up.T)) @ down.T
        )
    torch.testing.assert_close(turned[0], expected)


def test_stage_two_begins_with_what_stage_one_learned() -> None:
    moe = MultilingualMoE(MultilingualExperts(), WIDTH)
    tokens = torch.randn(2, 5, WIDTH)

    turned, weights = moe(tokens, torch.randn(3, WIDTH), torch.ones(2, 3, dtype=torch.bool))

    assert torch.equal(turned, tokens)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2))


def test_only_an_images_own_words_route_it() -> None:
    moe = with_random_weights(MultilingualExperts())
    tokens, words = torch.randn(2, 5, WIDTH), torch.randn(6, WIDTH)
    mask = torch.tensor([[True, True, False, False, False, False], [False, False, True, True, True, False]])

    together = moe.route(tokens[:, 0], words, mask)

    for image in range(2):
        torch.testing.assert_close(together[image], literal_routing(moe, tokens[image], words[mask[image]]))


def test_an_image_without_words_is_routed_by_nothing() -> None:
    moe = with_random_weights(MultilingualExperts())
    weights = moe.route(torch.randn(1, WIDTH), torch.randn(3, WIDTH), torch.zeros(1, 3, dtype=torch.bool))

    torch.testing.assert_close(weights, torch.full((1, 6), 1 / 6))


PAD, IMAGE, N = 0, 9, IGNORED
# Two packed samples, and padding. The first has two images in two questions, the second none.
IDS = torch.tensor([[1, IMAGE, IMAGE, 2, 3, 4, IMAGE, IMAGE, 5, 6, 7, 8, 8, PAD]])
LABELS = torch.tensor([[N, N, N, N, 3, N, N, N, N, 6, N, 8, N, N]])
POSITIONS = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 0]])


@pytest.mark.parametrize(
    ("guide", "expected"),
    [
        ("first_question", [[1, 2], [1, 2, 4, 5]]),
        ("whole_prompt", [[1, 2, 4, 5], [1, 2, 4, 5]]),
    ],
)
def test_the_prompt_of_an_image_stays_in_its_sample_and_knows_no_later_question(
    guide: str, expected: list[list[int]]
) -> None:
    mask = prompts_of_images(
        IDS, IDS == IMAGE, PAD, 2, labels=LABELS, position_ids=POSITIONS, guide=guide
    )  # fmt: skip

    assert [IDS[0][row].tolist() for row in mask] == expected
