"""How CPM-Bee's answers are looked for: greedily or by beams, with penalties for length and repetition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from models.cpm_bee_layout import Layout, grown, layout_of

if TYPE_CHECKING:
    from models.cpm_bee import CpmBee

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer so far."""


class Decoding(NamedTuple):
    """How an answer is looked for."""

    most: int
    """Longest answer, in tokens."""
    beams: int
    end: int
    """The token that ends an answer."""
    length_penalty: float
    repetition_penalty: float


def best_answer(model: CpmBee, ids: Tensor, words: Tensor, decoding: Decoding, streamer: Any) -> list[int]:
    """The best answer to one prompt: ids (1, tokens) and their embeddings (1, tokens, width) -> its tokens."""
    most, beams, end, penalty, repetition = decoding
    layout, cache = layout_of(ids), Cache()
    states = model.encoder(words, model.position_bias(layout, layout).to(words.dtype), cache)
    scores = model.input_embedding.head(states[:, -1]).float().log_softmax(-1)[0]
    first = scores.topk(beams)
    found: list[tuple[float, list[int]]] = []
    alive = [
        (score, [token]) for score, token in zip(first.values.tolist(), first.indices.tolist(), strict=True)
    ]
    parents = [0] * beams
    for step in range(1, most + 1):
        if streamer is not None:
            streamer.put(torch.tensor(alive[0][1][-1:]))
        ended = [(score, tokens) for score, tokens in alive if tokens[-1] == end]
        found += [(score / len(tokens) ** penalty, tokens) for score, tokens in ended]
        going = [index for index, (_, tokens) in enumerate(alive) if tokens[-1] != end]
        if not going or step == most or len(found) >= beams:
            break
        chosen = torch.tensor([parents[index] for index in going], device=ids.device)
        cache[:] = [(key[chosen], value[chosen]) for key, value in cache]
        alive = [alive[index] for index in going]
        layout = grown(layout, len(alive))
        query = Layout(*(part[:, -1:] for part in layout))
        newest = torch.tensor([[tokens[-1]] for _, tokens in alive], device=ids.device)
        embedded = model.input_embedding(newest).to(words.dtype)
        states = model.encoder(embedded, model.position_bias(query, layout).to(words.dtype), cache)
        logits = model.input_embedding.head(states[:, -1]).float()
        scores = penalised(logits, [tokens for _, tokens in alive], repetition).log_softmax(-1)
        total = scores + torch.tensor([score for score, _ in alive], device=ids.device).unsqueeze(1)
        best = total.flatten().topk(beams)
        parents = (best.indices // total.shape[1]).tolist()
        tokens = (best.indices % total.shape[1]).tolist()
        alive = [
            (score, [*alive[parent][1], token])
            for score, parent, token in zip(best.values.tolist(), parents, tokens, strict=True)
        ]
    if streamer is not None:
        streamer.end()
    found += [(score / len(tokens) ** penalty, tokens) for score, tokens in alive]
    return max(found, key=lambda one: one[0])[1]


def penalised(logits: Tensor, answers: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Logits (rows, vocabulary) with the tokens that a row's answer has made less likely by `penalty`."""
    if penalty == 1:
        return logits
    changed = logits.clone()
    for row, tokens in enumerate(answers):
        said = torch.tensor(sorted(set(tokens)), device=logits.device)
        values = logits[row, said]
        changed[row, said] = torch.where(values < 0, values * penalty, values / penalty)
    return changed
