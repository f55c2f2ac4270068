"""CLIP's and Chinese-CLIP's vision transformers as encoders: the states of one chosen layer.

LLaVA and Parrot take layer -2: what the last layer adds serves the contrastive loss alone (LLaVA, section 4.1).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import (
    ChineseCLIPVisionConfig,
    ChineseCLIPVisionModel,
    CLIPVisionConfig,
    CLIPVisionModel,
)

from models.architecture import ClipEncoder

_FAMILIES: dict[str, tuple[Any, Any]] = {
    "openai": (CLIPVisionConfig, CLIPVisionModel),
    "chinese": (ChineseCLIPVisionConfig, ChineseCLIPVisionModel),
}


class ClipVision(nn.Module):
    """Pixels in, hidden states of `config.layer` out.

    Layers above the chosen one are not built: they would cost time and memory for nothing. (Of the published
    weights, theirs and `post_layernorm` are left out at loading.)
    """

    def __init__(self, config: ClipEncoder) -> None:
        super().__init__()
        self.config = config
        make_config, make_model = _FAMILIES[config.family]
        used = config.layer % (config.layers + 1)
        vision = make_model(
            make_config(
                hidden_size=config.width, intermediate_size=config.mlp_width, num_hidden_layers=used,
                num_attention_heads=config.heads, image_size=config.image_size, patch_size=config.patch_size,
                hidden_act="quick_gelu",
            )
        )  # fmt: skip
        self.embeddings, self.pre_layrnorm, self.encoder = (
            vision.embeddings,
            vision.pre_layrnorm,
            vision.encoder,
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(images, 3, size, size) normalised pixels -> (images, patches and perhaps [CLS], width), [CLS] first.

        The [CLS] state is always there; who does not want it drops it after the bridge.
        """
        # (images, 1 + patches, width)
        states = self.pre_layrnorm(self.embeddings(pixels))
        found: Tensor = self.encoder(inputs_embeds=states).last_hidden_state
        return found
