"""CPM-Bee: the language model of VisCPM-Chat. transformers has none, so it is built here.

A prompt is a small dictionary, flattened into segments: the root, then a key and a value for each entry, the answer
last. It differs from other decoders in three ways, which are all read off the ids:

- **Prefix-LM**: every token of the context sees the whole context; only the answer is causal.
- **Bucketed position bias**: within a segment by distance, between segments by how they lie in the tree; there are
  no positions in the embeddings.
- **Extended embeddings**: tokens outside the vocabulary are their class's embedding, turned by a number that tells
  them apart within the text. An id here carries both: `id + number * SUB`.

Names and scales of the weights are those that OpenBMB published, so that its checkpoints fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from models.cpm_bee_layout import END, PAD, SUB, Layout, distance_bucket, layout_of, segment_bucket, visible
from models.cpm_bee_search import Cache, Decoding, best_answer

MOST_TOKENS = 3000
"""Of prompt and answer together. Nothing in the model bounds them; VisCPM's code cuts prompts there."""
RESIDUAL_SCALE = 1.05
DISTANCE_SCALE = 16
"""Positions in the extended embeddings are stretched, so that few numbers turn far."""
ROTARY_BASE = 10_000


@dataclass(frozen=True)
class CpmBeeConfig:
    """Shape; the defaults are CPM-Bee-10B's."""

    vocab_size: int = 86_583
    dim_model: int = 4096
    dim_ff: int = 10_240
    num_layers: int = 48
    num_heads: int = 32
    dim_head: int = 128
    position_bias_num_buckets: int = 256
    position_bias_num_segment_buckets: int = 256
    position_bias_max_distance: int = 2048
    eps: float = 1e-6

    model_type = "cpm_bee"

    @property
    def num_hidden_layers(self) -> int:
        return self.num_layers

    @property
    def hidden_size(self) -> int:
        return self.dim_model


class ScaledLinear(nn.Module):
    """x W^T / sqrt(inputs), without bias; `before`: the division comes first, so that half precision holds."""

    def __init__(self, inputs: int, outputs: int, *, before: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.before = before

    def forward(self, states: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        scale = self.weight.shape[1] ** -0.5
        if self.before:
            return nn.functional.linear(states * scale, self.weight)
        return nn.functional.linear(states, self.weight) * scale


class Norm(nn.Module):
    """Root-mean-square norm, computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, states: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        variance = states.float().pow(2).mean(-1, keepdim=True)
        return (states * torch.rsqrt(variance + self.eps)).to(states.dtype) * self.weight


class Attention(nn.Module):
    """Multi-head attention with a bias on the scores."""

    def __init__(self, config: CpmBeeConfig) -> None:
        super().__init__()
        inner = config.num_heads * config.dim_head
        self.heads, self.head = config.num_heads, config.dim_head
        self.project_q, self.project_k, self.project_v = (
            ScaledLinear(config.dim_model, inner) for _ in range(3)
        )
        self.attention_out = ScaledLinear(inner, config.dim_model)

    def forward(self, states: Tensor, bias: Tensor, cache: Cache | None, layer: int) -> Tensor:
        """(rows, queries, width) -> the same; `bias` (rows, heads, queries, keys), lowest where nothing is seen."""
        query, key, value = (
            project(states).unflatten(-1, (self.heads, self.head)).transpose(1, 2)
            for project in (self.project_q, self.project_k, self.project_v)
        )
        if cache is not None:
            if layer < len(cache):
                key = torch.cat((cache[layer][0], key), dim=2)
                value = torch.cat((cache[layer][1], value), dim=2)
                cache[layer] = (key, value)
            else:
                cache.append((key, value))
        seen = nn.functional.scaled_dot_product_attention(query, key, value, bias)
        out: Tensor = self.attention_out(seen.transpose(1, 2).flatten(2))
        return out


class AttentionBlock(nn.Module):
    """(x + attention(norm(x))) / 1.05."""

    def __init__(self, config: CpmBeeConfig) -> None:
        super().__init__()
        self.layernorm_before_attention = Norm(config.dim_model, config.eps)
        self.self_attention = Attention(config)

    def forward(self, states: Tensor, bias: Tensor, cache: Cache | None, layer: int) -> Tensor:
        """(rows, queries, width) -> the same."""
        seen = self.self_attention(self.layernorm_before_attention(states), bias, cache, layer)
        added: Tensor = (states + seen) / RESIDUAL_SCALE
        return added


class GatedInput(nn.Module):
    """gelu(x W_0) * (x W_1)."""

    def __init__(self, config: CpmBeeConfig) -> None:
        super().__init__()
        self.w_0 = ScaledLinear(config.dim_model, config.dim_ff)
        self.w_1 = ScaledLinear(config.dim_model, config.dim_ff)

    def forward(self, states: Tensor) -> Tensor:
        """(..., width) -> (..., inner width)."""
        gated: Tensor = nn.functional.gelu(self.w_0(states)) * self.w_1(states)
        return gated


class FeedForward(nn.Module):
    """The gated input and the way back."""

    def __init__(self, config: CpmBeeConfig) -> None:
        super().__init__()
        self.w_in = GatedInput(config)
        self.w_out = ScaledLinear(config.dim_ff, config.dim_model, before=True)

    def forward(self, states: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        out: Tensor = self.w_out(self.w_in(states))
        return out


class FeedForwardBlock(nn.Module):
    """(x + ffn(norm(x))) / 1.05."""

    def __init__(self, config: CpmBeeConfig) -> None:
        super().__init__()
        self.layernorm_before_ffn = Norm(config.dim_model, config.eps)
        self.ffn = FeedForward(config)

    def forward(self, states: Tensor) -> Tensor:
        """(rows, tokens, width) -> the same."""
        added: Tensor = (states + self.ffn(self.layernorm_before_ffn(states))) / RESIDUAL_SCALE
        return added


class Block(GradientCheckpointingLayer):
    """One layer; a trainer may have it compute its activations twice."""

    def __init__(self, config: CpmBeeConfig) -> None:
        super().__init__()
        self.self_att = AttentionBlock(config)
        self.ffn = FeedForwardBlock(config)

    def forward(self, states: Tensor, bias: Tensor, cache: Cache | None, layer: int) -> Tensor:
        """(rows, queries, width) -> the same."""
        done: Tensor = self.ffn(self.self_att(states, bias, cache, layer))
        return done


class Encoder(nn.Module):
    """The layers and the last norm."""

    def __init__(self, config: CpmBeeConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.output_layernorm = Norm(config.dim_model, config.eps)

    def forward(self, states: Tensor, bias: Tensor, cache: Cache | None) -> Tensor:
        """(rows, queries, width) -> the same."""
        for index, layer in enumerate(self.layers):
            states = layer(states, bias, cache, index)
        done: Tensor = self.output_layernorm(states)
        return done


class PositionBias(nn.Module):
    """A bias on the scores per head: by distance within a segment, by the tree between segments."""

    def __init__(self, config: CpmBeeConfig) -> None:
        super().__init__()
        self.buckets, self.most = config.position_bias_num_buckets, config.position_bias_max_distance
        rows = config.position_bias_num_buckets + config.position_bias_num_segment_buckets
        self.relative_attention_bias = nn.Parameter(torch.randn(rows, config.num_heads))

    def forward(self, query: Layout, key: Layout) -> Tensor:
        """(rows, heads, queries, keys); the lowest number of the type where the query does not see the key."""
        segment = segment_bucket(query.segment[:, :, None], key.segment[:, None, :])
        apart = key.place[:, None, :] - query.place[:, :, None]
        bucket = torch.where(
            segment.eq(0), distance_bucket(apart, self.buckets, self.most), segment - 1 + self.buckets
        )
        bias = nn.functional.embedding(bucket, self.relative_attention_bias).permute(0, 3, 1, 2)
        lowest = torch.finfo(bias.dtype).min
        return bias.masked_fill(~visible(query, key).unsqueeze(1), lowest)


class EmbeddingExt(nn.Module):
    """Word embeddings, each turned by the number that its id carries beside the token."""

    def __init__(self, config: CpmBeeConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(config.vocab_size, config.dim_model) * 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """(...) -> (..., width)."""
        width = self.weight.shape[1]
        words = nn.functional.embedding(ids % SUB, self.weight) * width**-0.5
        return turned(words, ids // SUB)

    def head(self, states: Tensor) -> Tensor:
        """Logits over the vocabulary: (..., width) -> (..., tokens)."""
        return nn.functional.linear(states * self.weight.shape[1] ** -0.5, self.weight)


def turned(words: Tensor, number: Tensor) -> Tensor:
    """Rotary embedding of `words` (..., width) at position 16 times `number` (...), over the whole width."""
    width = words.shape[-1]
    speed = ROTARY_BASE ** -(torch.arange(0, width, 2, device=words.device, dtype=torch.float32) / width)
    angle = (number * DISTANCE_SCALE).unsqueeze(-1).float() * speed
    angle = torch.cat((angle, angle), dim=-1)
    first, second = words.chunk(2, dim=-1)
    rotated = torch.cat((-second, first), dim=-1)
    return (words * angle.cos() + rotated * angle.sin()).to(words.dtype)


class Head(nn.Module):
    """The output layer: the word embeddings themselves."""

    def __init__(self, embedding: EmbeddingExt) -> None:
        super().__init__()
        # In a list, so that the embeddings are not counted twice.
        self._embedding = [embedding]

    @property
    def weight(self) -> nn.Parameter:
        return self._embedding[0].weight

    def forward(self, states: Tensor) -> Tensor:
        """(..., width) -> (..., tokens)."""
        return self._embedding[0].head(states)


class CpmBee(nn.Module):
    """The whole model. `states` computes, `generate` answers."""

    def __init__(self, config: CpmBeeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.input_embedding = EmbeddingExt(config)
        self.position_bias = PositionBias(config)

    def get_input_embeddings(self) -> EmbeddingExt:
        """The layer that makes word embeddings of ids."""
        return self.input_embedding

    def get_output_embeddings(self) -> Head:
        """The layer that makes logits of states."""
        return Head(self.input_embedding)

    def forward(
        self, ids: Tensor, embeddings: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        """Last states (rows, tokens, width).

        Args:
            ids: (rows, tokens); they tell segments and context even where `embeddings` replace their words.
            embeddings: (rows, tokens, width), with images in their places.
            position_ids: 0 at each sample's first token, where rows are packs.
        """
        layout = layout_of(ids, position_ids)
        words = self.input_embedding(ids) if embeddings is None else embeddings
        states: Tensor = self.encoder(words, self.position_bias(layout, layout).to(words.dtype), None)
        return states

    @torch.inference_mode()
    def generate(
        self, *, ids: Tensor, inputs_embeds: Tensor, max_new_tokens: int, num_beams: int = 1,
        eos_token_id: int = END, pad_token_id: int = PAD, length_penalty: float = 1.0,
        repetition_penalty: float = 1.0, do_sample: bool = False, streamer: Any = None, **_: Any,
    ) -> Tensor:  # fmt: skip
        """Answers to left-padded prompts: (rows, tokens), filled up with `pad_token_id`; greedy, or the best beam.

        A beam's score is its log probability divided by its length to the power of `length_penalty`;
        `repetition_penalty` is CTRL's (Keskar et al. 2019, section 4.1), over the answer's own tokens.
        `streamer` is given each token of a single greedy answer, and told its end, as transformers does it.

        Raises:
            ValueError: it is asked to sample, or to stream what is no single greedy answer.
        """
        if do_sample:
            raise ValueError("CPM-Bee answers greedily or by beams, and does not sample")
        if streamer is not None and (num_beams > 1 or len(ids) > 1):
            raise ValueError("only a single greedy answer is streamed")
        decoding = Decoding(max_new_tokens, num_beams, eos_token_id, length_penalty, repetition_penalty)
        rows = [
            best_answer(self, ids[row : row + 1], inputs_embeds[row : row + 1], decoding, streamer)
            for row in range(len(ids))
        ]
        longest = max(map(len, rows))
        return torch.tensor([row + [pad_token_id] * (longest - len(row)) for row in rows], device=ids.device)
