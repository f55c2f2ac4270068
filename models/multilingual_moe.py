"""Parrot's multilingual mixture of experts: visual tokens turned towards the prompt's language.

Parrot, section 4.3. H in R^(N x C) are one image's projected tokens, H_cls its [CLS] token, T in R^(M x C)
the word embeddings of the prompt:

    H' = softmax(H_cls T^T / sqrt(C)) T             the prompt, as the image sees it
    P  = softmax(Linear(H'))                        one weight per expert
    MoE(H) = sum over the chosen experts of P[i] E_i(H)
    G  = H + alpha MoE(H)

The published code differs: all experts always count, each is a gated MLP without biases, and the sum is
G = MoE(H) + residual H. With its residual of 0.1, an image's tokens have about a tenth of their size when
stage 2 begins; so the paper's form is the default here, and its experts start at zero, which makes the first
step of stage 2 see exactly what stage 1 learned.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.architecture import MultilingualExperts


class Expert(nn.Module):
    """Linear, SiLU, Linear (Parrot, section 5.1)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(width, inner)
        self.down_proj = nn.Linear(inner, width)
        nn.init.zeros_(self.down_proj.weight)
        nn.init.zeros_(self.down_proj.bias)

    def forward(self, states: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        out: Tensor = self.down_proj(nn.functional.silu(self.up_proj(states)))
        return out


class GatedExpert(nn.Module):
    """down(silu(gate(x)) * up(x)), without biases: the expert of Parrot's published code."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        out: Tensor = self.down_proj(nn.functional.silu(self.gate_proj(states)) * self.up_proj(states))
        return out


class MultilingualMoE(nn.Module):
    """Experts over the visual tokens, routed per image by its prompt. State names are the published ones."""

    def __init__(self, config: MultilingualExperts, width: int) -> None:
        super().__init__()
        self.config = config
        inner = config.mlp_width or width
        expert = GatedExpert if config.form == "released" else Expert
        self.gate = nn.Linear(width, config.experts, bias=False)
        self.experts = nn.ModuleList(expert(width, inner) for _ in range(config.experts))

    def route(self, cls: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Weight of each expert per image: (images, experts), float32, rows sum to 1 before any choice of top k.

        Args:
            cls: (images, width), each image's [CLS] token after the bridge.
            words: (words, width), the word embeddings of the batch.
            mask: (images, words), true where a word belongs to the image's prompt. An image without a
                prompt is routed by nothing: every expert gets the same weight.
        """
        scores = (cls @ words.T).float() * cls.shape[-1] ** -0.5
        lowest = torch.finfo(scores.dtype).min
        seen = scores.masked_fill(~mask, lowest).softmax(-1) * mask.any(-1, keepdim=True)
        guided = seen.to(words.dtype) @ words
        weights = self.gate(guided.to(self.gate.weight.dtype)).float().softmax(-1)
        if self.config.top_k is None or self.config.top_k >= self.config.experts:
            return weights
        kept = weights.topk(self.config.top_k, dim=-1)
        return torch.zeros_like(weights).scatter(-1, kept.indices, kept.values)

    def forward(self, tokens: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens turned towards the prompt, (images, tokens, width), and the weights (images, experts).

        `tokens` (images, tokens, width), the [CLS] token first; `words` and `mask` as for `route`.
        """
        weights = self.route(tokens[:, 0], words.to(tokens.dtype), mask)
        mixed = torch.zeros_like(tokens)
        # One expert at a time: all six outputs at once would hold six times the memory of the image's tokens.
        for index, expert in enumerate(self.experts):
            mixed = mixed + weights[:, index, None, None].to(tokens.dtype) * expert(tokens)
        if self.config.form == "released":
            return mixed + self.config.residual * tokens, weights
        return tokens + self.config.alpha * mixed, weights
