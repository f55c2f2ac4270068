"""Chinese-CLIP checkpoints in cn_clip's own `.pt` format, converted to the layout of transformers.

Such a file is a pickle of `{"state_dict": ...}`. It is read with `weights_only=True`, which builds
tensors and plain containers only and runs no code from the file. This is the one place where a
file that is not safetensors is read.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.weights import WeightsError

_HEAD_WIDTH = 64
_HUGE_WIDTH, _HUGE_HEAD_WIDTH = 1280, 80
"""ViT-H has wider heads than the other published sizes (`vision_head_width` in cn_clip's ViT-H-14.json)."""


def read_state(path: Path) -> dict[str, Tensor]:
    """The float32 tensors of a `.pt` file by cn_clip's names, without a DistributedDataParallel prefix.

    Raises:
        WeightsError: the file is damaged, holds more than tensors, or is no vision-transformer Chinese-CLIP.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"this is no cn_clip checkpoint that can be read safely: {reason}",
            where=path,
            remedy="fetch the .pt file again from where its authors publish it",
        ) from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(
            "this .pt file has no `state_dict` of tensors", where=path, remedy="give a checkpoint of cn_clip"
        )
    tensors = {name.removeprefix("module."): value.float() for name, value in state.items()}
    if "visual.conv1.weight" not in tensors or "visual.class_embedding" not in tensors:
        raise WeightsError(
            "the image encoder of this checkpoint is no vision transformer",
            where=path,
            remedy="use one of the ViT models; RN50 has another architecture",
        )
    return tensors


def config_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The `ChineseCLIPConfig` document that fits a state: all sizes are read from the tensors' shapes."""
    vision_width, _, patch_size, _ = state["visual.conv1.weight"].shape
    patches_per_side = round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    vision_head_width = _HUGE_HEAD_WIDTH if vision_width == _HUGE_WIDTH else _HEAD_WIDTH
    vocabulary, text_width = state["bert.embeddings.word_embeddings.weight"].shape
    projection = state["text_projection"].shape[1]
    return {
        "projection_dim": projection,
        "logit_scale_init_value": float(state["logit_scale"]),
        "vision_config": {
            "hidden_size": vision_width,
            "intermediate_size": state["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            "num_hidden_layers": _count(state, r"visual\.transformer\.resblocks\.(\d+)\."),
            "num_attention_heads": max(1, vision_width // vision_head_width),
            "patch_size": patch_size,
            "image_size": patches_per_side * patch_size,
            "projection_dim": projection,
            "hidden_act": "quick_gelu",
        },
        "text_config": {
            "vocab_size": vocabulary,
            "hidden_size": text_width,
            "intermediate_size": state["bert.encoder.layer.0.intermediate.dense.weight"].shape[0],
            "num_hidden_layers": _count(state, r"bert\.encoder\.layer\.(\d+)\."),
            "num_attention_heads": max(1, text_width // _HEAD_WIDTH),
            "max_position_embeddings": state["bert.embeddings.position_embeddings.weight"].shape[0],
            "type_vocab_size": state["bert.embeddings.token_type_embeddings.weight"].shape[0],
            "hidden_act": "gelu",
        },
    }


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    found = (re.match(pattern, name) for name in state)
    return 1 + max(int(match[1]) for match in found if match)


_VISION_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights by the names of `transformers.ChineseCLIPModel`.

    cn_clip's pooler is left out: neither implementation uses it for the text feature.
    """
    converted: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith("bert."):
            if not name.startswith("bert.pooler."):
                converted["text_model." + name.removeprefix("bert.")] = value
        elif name.startswith("visual.transformer.resblocks."):
            converted.update(_vision_layer(name, value))
        else:
            converted.update(_outside_layers(name, value))
    return converted


def _vision_layer(name: str, value: Tensor) -> dict[str, Tensor]:
    layer, part = name.removeprefix("visual.transformer.resblocks.").split(".", 1)
    prefix = f"vision_model.encoder.layers.{layer}."
    if part.startswith("attn.in_proj_"):
        kind = part.removeprefix("attn.in_proj_")
        names = (f"{prefix}self_attn.{which}_proj.{kind}" for which in "qkv")
        return dict(zip(names, value.chunk(3), strict=True))
    module, kind = part.rsplit(".", 1)
    return {f"{prefix}{_VISION_NAMES[module]}.{kind}": value}


def _outside_layers(name: str, value: Tensor) -> dict[str, Tensor]:
    match name:
        case "logit_scale":
            return {"logit_scale": value}
        case "text_projection":
            return {"text_projection.weight": value.T}
        case "visual.proj":
            return {"visual_projection.weight": value.T}
        case "visual.class_embedding":
            return {"vision_model.embeddings.class_embedding": value}
        case "visual.positional_embedding":
            return {"vision_model.embeddings.position_embedding.weight": value}
        case "visual.conv1.weight":
            return {"vision_model.embeddings.patch_embedding.weight": value}
    module, kind = name.rsplit(".", 1)
    # `pre_layrnorm` is how transformers spells it.
    norms = {"visual.ln_pre": "pre_layrnorm", "visual.ln_post": "post_layernorm"}
    if module not in norms:
        raise WeightsError(f"the checkpoint has a tensor {name!r}, which Chinese-CLIP does not have")
    return {f"vision_model.{norms[module]}.{kind}": value}
