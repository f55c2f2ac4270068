"""The visual module's encoder: a vision transformer with learned query tokens.

Image patches and queries go through the same layers and see each other; the states of the
queries are what the language model is given (MpM paper, section 4.1: the Muffin bridge).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

INITIAL_DEVIATION = 0.5


@dataclass(frozen=True)
class VisionConfig:
    """Shape of the encoder."""

    image_size: int = 48
    """Side of the square that an image is resized to, in pixels."""
    patch_size: int = 8
    queries: int = 8
    width: int = 192
    layers: int = 4
    heads: int = 4
    mlp_ratio: float = 3.0


class Layer(nn.Module):
    """A pre-norm transformer layer without causal mask."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, states: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same shape."""
        batch, tokens, width = states.shape
        qkv = self.qkv(self.attention_norm(states)).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = attention(query, key, value)
        states = states + self.attention_out(attended.transpose(1, 2).reshape(batch, tokens, width))
        mixed: Tensor = states + self.mlp(self.mlp_norm(states))
        return mixed


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k / sqrt(d)) v over all tokens; (batch, heads, tokens, d) each."""
    if query.is_cuda:
        return nn.functional.scaled_dot_product_attention(query, key, value)
    # On a CPU the fused kernel's backward pass is several times slower at a few dozen tokens.
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    return scores.float().softmax(-1).to(value.dtype) @ value


class VisionEncoder(nn.Module):
    """Pixels in, the states of the query tokens out."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        patches = (config.image_size // config.patch_size) ** 2
        self.patches = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
        # As large as the patches' own states: from a smaller start, where a patch is and which query asks
        # are learned only late, and the quickstart's training is short.
        self.positions = nn.Parameter(torch.randn(patches, config.width) * INITIAL_DEVIATION)
        self.queries = nn.Parameter(torch.randn(config.queries, config.width) * INITIAL_DEVIATION)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, pixels: Tensor) -> Tensor:
        """(images, 3, size, size) normalised pixels -> (images, queries, width)."""
        patches = self.patches(pixels).flatten(2).transpose(1, 2) + self.positions
        queries = self.queries.expand(len(pixels), -1, -1)
        states = torch.cat((patches, queries), dim=1)
        for layer in self.layers:
            states = layer(states)
        seen: Tensor = self.norm(states[:, patches.shape[1] :])
        return seen
