"""CPM-Bee: against the published formulas, written out, and its attention against transformers' CPM-Ant."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CpmAntConfig, RepetitionPenaltyLogitsProcessor
from transformers.models.cpmant.modeling_cpmant import CpmAntAttention

from models.cpm_bee import CpmBee, CpmBeeConfig, turned
from models.cpm_bee_layout import BEGIN, END, PAD, SUB, distance_bucket, layout_of, segment_bucket
from models.cpm_bee_search import penalised

CONFIG = CpmBeeConfig(
    vocab_size=40, dim_model=16, dim_ff=24, num_layers=2, num_heads=2, dim_head=8,
    position_bias_num_buckets=8, position_bias_num_segment_buckets=80, position_bias_max_distance=16,
)  # fmt: skip
# root, key "image", its value, key "question", its value, key "<ans>", the answer (no end yet)
IDS = [BEGIN, 8, END, BEGIN, 20, END, BEGIN, 21, 22, END, BEGIN, 23, END, BEGIN, 24, 25, 26, END,
       BEGIN, 9, END, BEGIN, 27, 28]  # fmt: skip
SEGMENTS = [0] * 3 + [1] * 3 + [2] * 4 + [3] * 3 + [4] * 5 + [5] * 3 + [6] * 3


@pytest.fixture(scope="module")
def model() -> CpmBee:
    torch.manual_seed(0)
    return CpmBee(CONFIG).eval()


def published_bucket(query: int, key: int) -> int:
    """By the tree: 0 hangs from nothing, odd segments from 0, even ones from the segment before."""

    def path(segment: int) -> list[int]:
        return [0] if segment == 0 else [0, segment] if segment % 2 else [0, segment - 1, segment]

    up, down = path(query), path(key)
    shared = sum(1 for one, other in zip(up, down, strict=False) if one == other)
    bucket = (len(up) - shared) * 8 + (len(down) - shared)
    return bucket + 1 if bucket else 0


def published_distance(distance: int, buckets: int, most: int) -> int:
    half, exact = buckets // 2, buckets // 4
    away = abs(distance)
    if away >= exact:
        away = min(exact + int(math.log(away / exact) / math.log(most / exact) * (half - exact)), half - 1)
    return away + (half if distance > 0 else 0)


def literal(model: CpmBee, ids: list[int]) -> Tensor:
    """Last states of one sample: the published equations, head by head and pair by pair."""
    words = torch.stack([model.input_embedding.weight[token] / 4 for token in ids])
    count, answer = len(ids), SEGMENTS[-1]
    table = model.position_bias.relative_attention_bias

    def rms(states: Tensor, weight: Tensor) -> Tensor:
        return states / (states.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight

    def bias(query: int, key: int) -> Tensor:
        if SEGMENTS[query] == SEGMENTS[key]:
            return table[published_distance(key - query, 8, 16)]
        return table[8 + published_bucket(SEGMENTS[query], SEGMENTS[key]) - 1]

    states = words
    for layer in model.encoder.layers:
        block = layer.self_att
        normed = rms(states, block.layernorm_before_attention.weight)
        query, key, value = (
            normed @ projection.weight.T / 4
            for projection in (
                block.self_attention.project_q, block.self_attention.project_k, block.self_attention.project_v,
            )
        )  # fmt: skip
        joined = torch.zeros(count, 16)
        for head in range(2):
            part = slice(8 * head, 8 * head + 8)
            for q in range(count):
                seen = [
                    k for k in range(count)
                    if SEGMENTS[k] != answer or (SEGMENTS[q] == answer and k <= q)
                ]  # fmt: skip
                scores = torch.stack(
                    [query[q, part] @ key[k, part] / 8**0.5 + bias(q, k)[head] for k in seen]
                )
                joined[q, part] = scores.softmax(0) @ value[seen][:, part]
        states = (states + joined @ block.self_attention.attention_out.weight.T / 4) / 1.05
        mlp = layer.ffn.ffn
        normed = rms(states, layer.ffn.layernorm_before_ffn.weight)
        gated = torch.nn.functional.gelu(normed @ mlp.w_in.w_0.weight.T / 4)
        inner = gated * (normed @ mlp.w_in.w_1.weight.T / 4)
        states = (states + inner / 24**0.5 @ mlp.w_out.weight.T) / 1.05
    return rms(states, model.encoder.output_layernorm.weight)


@torch.no_grad()
def test_states_are_those_of_the_published_equations(model: CpmBee) -> None:
    torch.testing.assert_close(model(torch.tensor([IDS]))[0], literal(model, IDS), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_attention_is_cpm_ants_but_for_the_scale_of_its_layers(model: CpmBee) -> None:
    ours = model.encoder.layers[0].self_att.self_attention
    theirs = CpmAntAttention(CpmAntConfig(hidden_size=16, num_attention_heads=2, dim_head=8)).eval()
    for name in ("project_q", "project_k", "project_v", "attention_out"):
        getattr(theirs, name).weight.copy_(getattr(ours, name).weight / 4)
    states, layout = torch.randn(1, len(IDS), 16), layout_of(torch.tensor([IDS]))
    bias = model.position_bias(layout, layout)
    seen = bias[:, 0] > torch.finfo(bias.dtype).min

    expected, _ = theirs(states, states, seen, bias.masked_fill(~seen.unsqueeze(1), 0.0))

    torch.testing.assert_close(ours(states, bias, None, 0), expected, atol=1e-5, rtol=1e-4)


def test_buckets_are_the_published_ones() -> None:
    for query in range(9):
        for key in range(9):
            assert segment_bucket(torch.tensor(query), torch.tensor(key)) == published_bucket(query, key)
    for distance in range(-40, 41):
        assert distance_bucket(torch.tensor(distance), 8, 16) == published_distance(distance, 8, 16)


def test_segments_and_context_are_read_off_the_ids() -> None:
    layout = layout_of(torch.tensor([IDS]))

    assert layout.segment[0].tolist() == SEGMENTS
    assert layout.context[0].tolist() == [segment != 6 for segment in SEGMENTS]


@torch.no_grad()
def test_the_context_sees_all_of_itself_and_nothing_of_the_answer(model: CpmBee) -> None:
    other_answer, other_question = IDS.copy(), IDS.copy()
    other_answer[-1], other_question[16] = 30, 30

    before, answer, question = (model(torch.tensor([ids]))[0] for ids in (IDS, other_answer, other_question))

    assert torch.equal(before[:-1], answer[:-1])
    assert not torch.allclose(before[0], question[0])


@torch.no_grad()
def test_packed_and_padded_samples_do_not_see_each_other(model: CpmBee) -> None:
    short = [BEGIN, 8, END, BEGIN, 9, END, BEGIN, 30]
    alone, other = model(torch.tensor([IDS]))[0], model(torch.tensor([short]))[0]
    count = len(IDS)

    positions = torch.tensor([[*range(count), *range(len(short)), 0]])
    packed = model(torch.tensor([[*IDS, *short, PAD]]), position_ids=positions)[0]
    padded = model(torch.tensor([[PAD] * 3 + IDS]))[0]

    torch.testing.assert_close(packed[:count], alone)
    torch.testing.assert_close(packed[count:-1], other)
    torch.testing.assert_close(padded[3:], alone)


@torch.no_grad()
def test_a_number_beside_an_id_turns_its_embedding(model: CpmBee) -> None:
    plain, third = model.input_embedding(torch.tensor([1, 1 + 3 * SUB]))

    torch.testing.assert_close(plain.norm(), third.norm())
    angle = torch.cat([48.0 * 10_000 ** -(torch.arange(0, 16, 2) / 16)] * 2)
    swapped = torch.cat((-plain[8:], plain[:8]))
    torch.testing.assert_close(third, plain * angle.cos() + swapped * angle.sin())
    assert torch.equal(turned(plain, torch.tensor(0)), plain)


@torch.no_grad()
def greedy(model: CpmBee, ids: list[int], tokens: int) -> list[int]:
    for _ in range(tokens):
        logits = model.get_output_embeddings()(model(torch.tensor([ids]))[0, -1])
        ids = [*ids, int(logits.argmax())]
        if ids[-1] == END:
            break
    return ids


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_with_a_cache_are_those_without_and_more_beams_are_no_worse(
    model: CpmBee, beams: int
) -> None:
    prompt = IDS[:-2]
    ids = torch.tensor([prompt])

    def answer(count: int) -> list[int]:
        return model.generate(
            ids=ids, inputs_embeds=model.input_embedding(ids), max_new_tokens=5, num_beams=count
        )[0].tolist()  # fmt: skip

    def score(tokens: list[int]) -> float:
        states = model(torch.tensor([prompt + tokens]))[0, len(prompt) - 1 : -1]
        logs = model.get_output_embeddings()(states).log_softmax(-1)
        return float(logs.gather(1, torch.tensor(tokens)[:, None]).mean())

    with torch.no_grad():
        found, plain = answer(beams), answer(1)
        assert plain == greedy(model, prompt, 5)[len(prompt) :]
        assert score(found) >= score(plain) - 1e-6


def test_the_published_size_is_ten_billion() -> None:
    with torch.device("meta"):
        model = CpmBee(CpmBeeConfig())

    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(9.5e9, rel=0.05)


def generated(model: CpmBee, **settings: Any) -> list[int]:
    ids = torch.tensor([IDS[:22]])
    found = model.generate(ids=ids, inputs_embeds=model.input_embedding(ids), max_new_tokens=6, **settings)
    return found[0].tolist()


class Collected:
    """What `generate` streams."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ended = False

    def put(self, value: Tensor) -> None:
        self.tokens += value.tolist()

    def end(self) -> None:
        self.ended = True


def test_a_greedy_answer_is_streamed_token_by_token(model: CpmBee) -> None:
    streamed = Collected()
    assert generated(model, streamer=streamed) == streamed.tokens
    assert streamed.ended and streamed.tokens


def test_what_cannot_be_done_is_refused_not_ignored(model: CpmBee) -> None:
    with pytest.raises(ValueError, match="does not sample"):
        generated(model, do_sample=True)
    with pytest.raises(ValueError, match="single greedy answer"):
        generated(model, num_beams=2, streamer=Collected())


def test_repetition_is_penalised_by_the_published_formula(model: CpmBee) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 40, generator=generator)
    said = [[3, 3, 7], [39, 0, 5]]
    expected = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor(said), logits.clone())
    torch.testing.assert_close(penalised(logits, said, 1.3), expected)
    assert penalised(logits, said, 1.0) is logits
    plain, other = generated(model), generated(model, repetition_penalty=50.0)
    assert len(set(plain)) < len(plain) and len(set(other)) == len(other)
