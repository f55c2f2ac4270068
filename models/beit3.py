"""BEiT-3's multiway encoder with query tokens: the encoder of the Muffin bridge (VisCPM-Chat).

Every projection, norm and MLP exists twice: expert A for vision, expert B for language (Wang et al. 2022,
"Image as a foreign language", section 2.1). Image tokens go through A, the learned queries through B, and all
see each other in the attention. The states of the queries are what the language model is given. Names of the
weights are those of the published BEiT-3, so that its checkpoints fit (`models.published`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.architecture import Beit3Encoder

FIRST_POSITION = 2
"""Row of the first token's position: two are kept free, as in fairseq, where the weights come from."""
NORM_EPS = 1e-5
INITIAL_DEVIATION = 0.02


class Multiway(nn.Module):
    """Two experts of one shape: A for the first `split` tokens, B for the others."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.A, self.B = make(), make()

    def forward(self, states: Tensor, split: int) -> Tensor:
        """(batch, tokens, ...) -> (batch, tokens, ...)."""
        return torch.cat((self.A(states[:, :split]), self.B(states[:, split:])), dim=1)


class Attention(nn.Module):
    """Multi-head attention with a norm before the output projection (Magneto's sub-LayerNorm)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            Multiway(lambda: nn.Linear(width, width)) for _ in range(4)
        )
        self.inner_attn_ln = Multiway(lambda: nn.LayerNorm(width, eps=NORM_EPS))

    def forward(self, states: Tensor, split: int) -> Tensor:
        """(batch, tokens, width) -> the same; every token sees every other."""
        query, key, value = (
            project(states, split).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        joined = self.inner_attn_ln(attended.transpose(1, 2).flatten(2), split)
        out: Tensor = self.out_proj(joined, split)
        return out


class FeedForward(nn.Module):
    """Linear, GELU, norm, Linear."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.ffn_layernorm = nn.LayerNorm(inner, eps=NORM_EPS)

    def forward(self, states: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        out: Tensor = self.fc2(self.ffn_layernorm(nn.functional.gelu(self.fc1(states))))
        return out


class Layer(nn.Module):
    """A pre-norm layer, attention shared and experts apart."""

    def __init__(self, config: Beit3Encoder) -> None:
        super().__init__()
        width = config.width
        self.self_attn_layer_norm = Multiway(lambda: nn.LayerNorm(width, eps=NORM_EPS))
        self.self_attn = Attention(width, config.heads)
        self.final_layer_norm = Multiway(lambda: nn.LayerNorm(width, eps=NORM_EPS))
        self.ffn = Multiway(lambda: FeedForward(width, config.mlp_width))

    def forward(self, states: Tensor, split: int) -> Tensor:
        """(batch, tokens, width) -> the same."""
        states = states + self.self_attn(self.self_attn_layer_norm(states, split), split)
        mixed: Tensor = states + self.ffn(self.final_layer_norm(states, split), split)
        return mixed


class VisionEmbedding(nn.Module):
    """[CLS] and one token per patch."""

    def __init__(self, config: Beit3Encoder) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))

    def forward(self, pixels: Tensor) -> Tensor:
        """(images, 3, size, size) -> (images, 1 + patches, width)."""
        patches = self.proj(pixels).flatten(2).transpose(1, 2)
        return torch.cat((self.cls_token.expand(len(patches), -1, -1), patches), dim=1)


class Encoder(nn.Module):
    """Learned positions of either branch, the layers, and the last norm."""

    def __init__(self, config: Beit3Encoder) -> None:
        super().__init__()
        image_tokens = (config.image_size // config.patch_size) ** 2 + 1
        self.embed_positions = nn.ModuleDict(
            {
                "A": nn.Embedding(image_tokens + FIRST_POSITION, config.width),
                "B": nn.Embedding(config.text_positions, config.width),
            }
        )
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.layer_norm = Multiway(lambda: nn.LayerNorm(config.width, eps=NORM_EPS))

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Tokens of the image (batch, N, width) and of the text (batch, M, width) -> states (batch, N + M, width)."""
        split = image.shape[1]
        states = torch.cat((self._placed("A", image), self._placed("B", text)), dim=1)
        for layer in self.layers:
            states = layer(states, split)
        seen: Tensor = self.layer_norm(states, split)
        return seen

    def _placed(self, branch: str, tokens: Tensor) -> Tensor:
        rows = self.embed_positions.get_submodule(branch).get_parameter("weight")
        return tokens + rows[FIRST_POSITION : FIRST_POSITION + tokens.shape[1]]


class Beit3(nn.Module):
    """Pixels in, the states of the queries out.

    The first and last query begin as BEiT-3's embeddings of the marks that begin and end a text (Muffin, Yu et
    al. 2023): the queries stand where a text stood in its pretraining. `start_queries` puts them there.
    """

    def __init__(self, config: Beit3Encoder) -> None:
        super().__init__()
        self.config = config
        self.vision_embed = VisionEmbedding(config)
        self.encoder = Encoder(config)
        self.queries = nn.Parameter(torch.empty(config.queries, config.width))
        self.reset_parameters()
        if config.freeze_vision_experts:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(".A." not in name and not name.startswith("vision_embed."))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Weights normal with deviation 0.02, biases 0, as BEiT-3 begins."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=INITIAL_DEVIATION)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.queries, std=INITIAL_DEVIATION)

    @torch.no_grad()
    def start_queries(self, begin: Tensor, end: Tensor) -> None:
        """Set the first and last query to the embeddings (width,) of the marks that begin and end a text."""
        self.queries[0] = begin
        self.queries[-1] = end

    def forward(self, pixels: Tensor) -> Tensor:
        """(images, 3, size, size) normalised pixels -> (images, queries, width)."""
        image = self.vision_embed(pixels)
        states: Tensor = self.encoder(image, self.queries.expand(len(image), -1, -1))
        return states[:, image.shape[1] :]
