"""What a vision-language model is made of, as data: which parts, how large, where their weights come from.

Imports no torch, so that a recipe and the web UI can read it. `models.factory` builds from it.
Defaults are the published sizes; a tiny twin gives smaller ones and runs the same code.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
"""Mean and deviation of BEiT-3's pixels."""


class Section(BaseModel):
    """Unknown keys are errors, so that a misspelt one is not silently a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Preprocessing(Section):
    """From an image of any shape to a square of normalised pixels."""

    fit: Literal["squash", "pad", "crop"] = Field(
        "squash",
        description="squash: stretch to the square (VisCPM); pad: first to a square with the mean colour "
        "(Parrot, LLaVA-1.5); crop: shorter side to size, then the centre (CLIP)",
    )
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD


class QueryTransformer(Section):
    """The small vision transformer with learned queries that is made in the graph (`models.vision`)."""

    kind: Literal["query_transformer"] = "query_transformer"
    image_size: int = 48
    patch_size: int = 8
    queries: int = 8
    width: int = 192
    layers: int = 4
    heads: int = 4
    mlp_ratio: float = 3.0

    @property
    def tokens(self) -> int:
        """Visual tokens per image."""
        return self.queries


class ClipEncoder(Section):
    """A CLIP vision transformer; its patch states at one layer are what the bridge gets."""

    kind: Literal["clip"] = "clip"
    family: Literal["openai", "chinese"] = Field(
        "openai", description="chinese: Chinese-CLIP (Parrot, Table 8)"
    )
    image_size: int = 336
    patch_size: int = 14
    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp_width: int = 4096
    layer: int = Field(-2, description="index into the hidden states; -1 is the last layer's output")
    keep_cls: bool = Field(
        False, description="whether the [CLS] state goes to the language model, as in Parrot"
    )

    @property
    def tokens(self) -> int:
        """Visual tokens per image."""
        return (self.image_size // self.patch_size) ** 2 + self.keep_cls


class Beit3Encoder(Section):
    """BEiT-3 with query tokens: the Muffin bridge's encoder (VisCPM, section 4.1). Defaults are the large model's."""

    kind: Literal["beit3"] = "beit3"
    image_size: int = 224
    patch_size: int = 16
    queries: int = 64
    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp_width: int = 4096
    text_positions: int = Field(1024, description="learned positions of the language branch")
    freeze_vision_experts: bool = Field(
        False, description="train queries and language experts alone, as Muffin's published code does"
    )

    @property
    def tokens(self) -> int:
        """Visual tokens per image."""
        return self.queries


Encoder = Annotated[QueryTransformer | ClipEncoder | Beit3Encoder, Field(discriminator="kind")]


class Bridge(Section):
    """From the encoder's width to the language model's."""

    kind: Literal["linear", "mlp"] = Field(
        "linear",
        description="linear: one layer (Muffin, the quickstart); mlp: Linear, GELU, Linear "
        "(LLaVA-1.5, Parrot, and VisCPM as published)",
    )


class MultilingualExperts(Section):
    """Parrot's mixture of experts over visual tokens, routed by the prompt (Parrot, section 4.3)."""

    experts: int = Field(6, ge=1)
    form: Literal["paper", "released"] = Field(
        "paper",
        description="paper: G = H + alpha MoE(H), experts Linear-SiLU-Linear; "
        "released: G = MoE(H) + residual H, experts gated as in Parrot's published code",
    )
    mlp_width: int | None = Field(
        None,
        ge=1,
        description="inner width of an expert; none: the language model's. Parrot's code uses 4096",
    )
    alpha: float = Field(1.0, description="weight of the experts in the paper's form")
    residual: float = Field(0.1, description="weight of the input in the released form")
    top_k: int | None = Field(None, ge=1, description="experts that count, by weight; none: all, as released")
    guide: Literal["first_question", "whole_prompt"] = Field(
        "first_question",
        description="text that routes an image: the prompt up to the first answer after it, the same in training "
        "and when answering; or every token that is not supervised, later questions included, as released",
    )


class Weights(Section):
    """Where a part's weights come from: a hub id (`owner/name@revision`) or a local path."""

    source: str
    file: str | None = Field(
        None,
        description="the checkpoint's name, where the folder or the hub's repository holds several; `sha256` is then this file's",
    )
    sha256: str | None = Field(None, description="pins the content; see models.weights.digest")
    layout: Literal["transformers", "beit3", "viscpm", "cpm_bee"] = Field(
        "transformers", description="whose names the tensors have"
    )


class Visual(Section):
    """The visual module: encoder, bridge, and experts where there are any."""

    encoder: Encoder
    bridge: Bridge = Bridge()
    experts: MultilingualExperts | None = None
    preprocessing: Preprocessing = Preprocessing()
    weights: Weights | None = Field(None, description="of the encoder; none: random, or made in the graph")

    @property
    def image_size(self) -> int:
        """Side of the square that the encoder takes, in pixels."""
        return self.encoder.image_size


class Lora(Section):
    """Low-rank adapters in the language model; its own weights stay as they are (Hu et al. 2021)."""

    rank: int = Field(64, ge=1)
    alpha: int = Field(128, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: list[str] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], min_length=1
    )


QWEN3_8B: dict[str, Any] = {
    "model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}  # fmt: skip


class LanguageModel(Section):
    """The language model: any causal model of transformers, or CPM-Bee. The default is one of today's."""

    architecture: dict[str, Any] = Field(
        QWEN3_8B,
        description="the config.json of transformers, `model_type` included; `model_type: cpm_bee` is built here",
    )
    weights: Weights | None = Field(
        Weights(source="Qwen/Qwen3-8B"), description="none: random, or made in the graph"
    )
    vocabulary: str | None = Field(
        None,
        description="CPM-Bee's vocab.txt, where it does not lie beside the weights: a file, a folder or a hub id",
    )
    template: Literal["chatml", "vicuna", "llama3", "plain", "cpm_bee"] = "chatml"
    system: str = Field("", description="the system prompt; empty: none")
    lora: Lora | None = None


class Architecture(Section):
    """A whole vision-language model."""

    visual: Visual
    language_model: LanguageModel
