"""Published checkpoints by their own names of tensors, put into the models here.

    transformers   CLIP and Chinese-CLIP, whole or the vision half alone, with or without LLaVA's prefix
    beit3          microsoft's BEiT-3 (`beit3.encoder...`): the queries' ends come from its text embeddings
    viscpm         VisCPM-Chat (`vpm.`, `query`, `mapping.`, `llm.`): encoder and connector
    cpm_bee        CPM-Bee (`encoder.`, `input_embedding.`, `position_bias.`)

BEiT-3, VisCPM and CPM-Bee are published as pickles of plain tensors: they are read with `weights_only=True`,
which builds tensors and plain containers and runs no code of the file.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from models import tensors
from models.architecture import Beit3Encoder, ClipEncoder, Visual
from models.weights import WeightsError

Layout = Literal["transformers", "beit3", "viscpm", "cpm_bee"]

TEXT_BEGIN, TEXT_END = 0, 2
"""Rows of BEiT-3's text embeddings for the marks that begin and end a text."""
_UNUSED_BY_BEIT3 = ("vision_embed.mask_token", "text_embed.weight")


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint: a folder of safetensors, a safetensors file, or a pickle of tensors alone.

    Raises:
        WeightsError: the file is damaged or holds more than tensors.
    """
    if path.is_dir():
        return tensors.load(path)
    if path.suffix == ".safetensors":
        return tensors.load_file(path)
    try:
        document = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"this is no checkpoint that can be read safely: {reason}", where=path,
            remedy="fetch it again from where its authors publish it, or give safetensors",
        ) from error  # fmt: skip
    for key in ("model", "state_dict", "module"):
        if isinstance(document, dict) and isinstance(document.get(key), dict):
            document = document[key]
    if not isinstance(document, dict) or not all(isinstance(value, Tensor) for value in document.values()):
        raise WeightsError("this checkpoint holds more than tensors", where=path)
    return document


def visual_state(config: Visual, state: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """The part of a checkpoint that belongs to the visual module, by the names here.

    Raises:
        WeightsError: the layout cannot give such an encoder.
    """
    match layout, config.encoder:
        case "transformers", ClipEncoder():
            return {f"encoder.{name}": value for name, value in clip(config.encoder, state).items()}
        case "beit3", Beit3Encoder():
            return {f"encoder.{name}": value for name, value in beit3(config.encoder, state).items()}
        case "viscpm", Beit3Encoder():
            inner = {name[4:]: value for name, value in state.items() if name.startswith("vpm.")}
            found = beit3(config.encoder, inner) | {"queries": state["query"]}
            bridge = {name[8:]: value for name, value in state.items() if name.startswith("mapping.")}
            return {f"encoder.{name}": value for name, value in found.items()} | {
                f"bridge.{name}": value for name, value in bridge.items()
            }
    raise WeightsError(f"a checkpoint of {layout} has no encoder of kind {config.encoder.kind!r}")


def clip(config: ClipEncoder, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's vision weights up to the layer that is used."""
    used = config.layer % (config.layers + 1)
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        match = re.search(r"(?:^|.*\.)?((?:embeddings|pre_layrnorm|encoder)\..*)$", name)
        if match is None or name.startswith("text_model.") or name.endswith("position_ids"):
            continue
        inner = match[1]
        layer = re.match(r"encoder\.layers\.(\d+)\.", inner)
        if layer is None or int(layer[1]) < used:
            found[inner] = value
    return found


def beit3(config: Beit3Encoder, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BEiT-3's weights; its image positions are interpolated where the recipe's image has another size.

    Raises:
        WeightsError: this is no BEiT-3.
    """
    found = {name[6:]: value for name, value in state.items() if name.startswith("beit3.")}
    if "text_embed.weight" not in found:
        raise WeightsError(
            "this checkpoint has no beit3.text_embed.weight", remedy="give a BEiT-3 checkpoint"
        )
    words = found["text_embed.weight"]
    queries = torch.randn(config.queries, config.width).clamp(-2, 2) * 0.02
    queries[0], queries[-1] = words[TEXT_BEGIN], words[TEXT_END]
    kept = {name: value for name, value in found.items() if name not in _UNUSED_BY_BEIT3}
    places = "encoder.embed_positions.A.weight"
    kept[places] = resized(kept[places], (config.image_size // config.patch_size) ** 2)
    return {"queries": queries, **kept}


def cpm_bee(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CPM-Bee's weights, of its own checkpoint, of the one with transformers' prefix, or out of VisCPM's (`llm.`)."""
    own = ("encoder.", "input_embedding.", "position_bias.")
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        bare = name.removeprefix("llm.").removeprefix("cpmbee.")
        bare = bare.replace("position_bias.weight", "position_bias.relative_attention_bias")
        if bare.startswith(own):
            found[bare] = value
    return found


def resized(positions: Tensor, patches: int) -> Tensor:
    """Positions (3 + n^2, width) for another number of patches, by bicubic interpolation over the grid.

    The first three rows (two free, and [CLS]) stay. Muffin tunes at 448 pixels from weights of 224 so.
    """
    kept, grid = positions[:3], positions[3:]
    if len(grid) == patches:
        return positions
    before, after = round(len(grid) ** 0.5), round(patches**0.5)
    image = grid.float().T.view(1, -1, before, before)
    larger = nn.functional.interpolate(image, (after, after), mode="bicubic", align_corners=False)
    return torch.cat((kept, larger[0].flatten(1).T.to(kept.dtype)))


def put(module: nn.Module, state: Mapping[str, Tensor], *, where: str | Path) -> None:
    """Put `state` into `module`; what the checkpoint does not have (a bridge, experts) keeps its weights.

    Raises:
        WeightsError: a tensor has no place or another shape, or a part that is there is incomplete.
    """
    own = module.state_dict()
    begun = {name.split(".")[0] for name in state}
    lacking = [name for name in own if name.split(".")[0] in begun and name not in state]
    strange = [name for name in state if name not in own]
    shapes = [name for name in state if name in own and own[name].shape != state[name].shape]
    for problem, names in (
        ("lacks", lacking),
        ("has no place here for", strange),
        ("has other shapes for", shapes),
    ):
        if names:
            raise WeightsError(
                f"the checkpoint {problem} {', '.join(sorted(names)[:3])} ({len(names)} in all)", where=where
            )
    module.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
