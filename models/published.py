"""Published checkpoints by their own names of tensors, put into the models here.

    transformers   CLIP and Chinese-CLIP, whole or the vision half alone, with or without LLaVA's prefix
    beit3          microsoft's BEiT-3 (`beit3.encoder...`): the queries' ends come from its text embeddings
    viscpm         VisCPM-Chat: encoder and connector (`vpm.`, `query`, `mapping.`), and its CPM-Bee (`llm.`)
    cpm_bee        CPM-Bee (`encoder.`, `input_embedding.`, `position_bias.`)

BEiT-3, VisCPM and CPM-Bee are published as pickles of plain tensors: they are read with `weights_only=True`,
which builds tensors and plain containers and runs no code of the file. The file is mapped: of VisCPM's, whoever
takes one half reads that half from the disk and nothing of the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from models import pickled, tensors, weights
from models.architecture import Beit3Encoder, ClipEncoder, Visual, Weights
from models.pickled import PICKLE_FILE, PICKLE_INDEX_FILE
from models.weights import INDEX_FILE, WEIGHTS_FILE, WeightsError

Layout = Literal["transformers", "beit3", "viscpm", "cpm_bee"]

TEXT_BEGIN, TEXT_END = 0, 2
"""Rows of BEiT-3's text embeddings for the marks that begin and end a text."""
_UNUSED_BY_BEIT3 = ("vision_embed.mask_token", "text_embed.weight")
_VISCPM_PARTS = re.compile(r"(vpm\.|query$|mapping\.|llm\.)")
PICKLES = ("*.bin", "*.pt", "*.pth")
_USUAL = (INDEX_FILE, WEIGHTS_FILE, PICKLE_INDEX_FILE, PICKLE_FILE)
VISUAL_PARTS: Mapping[Layout, tuple[str, ...]] = {
    "transformers": ("encoder",), "beit3": ("encoder",), "viscpm": ("encoder", "bridge"),
}  # fmt: skip
"""What each layout has of a visual module, and must have whole."""


def locate(source: Weights) -> Path:
    """Where the tensors of a source are, for `read`: a file, or a folder of safetensors. Its digest is checked.

    A hub's repository gives the file that is named and none of the other checkpoints, of which VisCPM-Chat's holds three.

    Raises:
        WeightsError: there is no such source or file in it, several that could be meant, or another digest.
    """
    if source.file is not None:
        patterns = [source.file, "*.json", "*.txt"]
    else:
        patterns = [*weights.HUB_PATTERNS, *(() if source.layout == "transformers" else PICKLES)]
    folder = weights.locate(source.source, patterns=patterns, sha256=None if source.file else source.sha256)
    if source.file is None:
        if folder.is_file():
            return folder
        if source.layout != "transformers":
            return checkpoint_in(folder)
        # Of the models of transformers, pickles are not opened.
        weights.require_weights(folder)
        return folder
    path = folder / source.file
    if not path.is_file():
        raise WeightsError(
            f"there is no {source.file} in it", where=folder,
            remedy="correct `weights.file`, or leave it out where `weights.source` is the file itself",
        )  # fmt: skip
    if source.sha256 is not None:
        weights.verify(path, source.sha256)
    return path


def checkpoint_in(folder: Path) -> Path:
    """The folder itself where its weights have the usual names (shards with an index are one checkpoint); else its one pickle.

    Raises:
        WeightsError: there is none, or several that could be meant.
    """
    if any((folder / name).is_file() for name in _USUAL):
        return folder
    found = sorted(path for pattern in PICKLES for path in folder.glob(pattern))
    if not found:
        raise WeightsError(f"this folder has no {WEIGHTS_FILE} and no {', '.join(PICKLES)}", where=folder)
    if len(found) > 1:
        raise WeightsError(
            f"this folder holds {len(found)} checkpoints: {', '.join(path.name for path in found)}", where=folder,
            remedy="name the one that is meant as `weights.file`",
        )  # fmt: skip
    return found[0]


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint: a folder or file of safetensors, or pickles of tensors alone.

    Raises:
        WeightsError: the file is damaged or holds more than tensors.
    """
    if path.is_dir():
        safe = any((path / name).is_file() for name in (INDEX_FILE, WEIGHTS_FILE))
        return tensors.load(path) if safe else pickled.read_folder(path)
    return tensors.load_file(path) if path.suffix == ".safetensors" else pickled.read(path)


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
            _check_viscpm(state)
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
    if places in kept:
        kept[places] = resized(kept[places], (config.image_size // config.patch_size) ** 2)
    return {"queries": queries, **kept}


def cpm_bee(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CPM-Bee's weights, of its own checkpoint or of the one with transformers' prefix."""
    own = ("encoder.", "input_embedding.", "position_bias.")
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        bare = name.removeprefix("cpmbee.")
        bare = bare.replace("position_bias.weight", "position_bias.relative_attention_bias")
        if bare.startswith(own):
            found[bare] = value
    return found


def viscpm_language_model(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The CPM-Bee that VisCPM-Chat was tuned with, out of its checkpoint: all of `llm.`, by the names here.

    Raises:
        WeightsError: this is no checkpoint of VisCPM-Chat.
    """
    _check_viscpm(state)
    return {name[4:]: value for name, value in state.items() if name.startswith("llm.")}


def _check_viscpm(state: Mapping[str, Tensor]) -> None:
    found = {match[1] for name in state if (match := _VISCPM_PARTS.match(name))}
    strange = sorted(name for name in state if not _VISCPM_PARTS.match(name))
    lacking = sorted({"vpm.", "query", "mapping.", "llm."} - found)
    if lacking or strange:
        problem = (
            f"it has no {', '.join(lacking)}" if lacking else f"it has {strange[0]} ({len(strange)} such)"
        )
        raise WeightsError(
            f"this is no checkpoint of VisCPM-Chat: {problem}",
            remedy="give one with vpm., query, mapping. and llm., such as pytorch_model.v1.bin of openbmb/VisCPM-Chat",
        )


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


def put(
    module: nn.Module, state: Mapping[str, Tensor], *, where: str | Path, parts: Sequence[str] | None = None
) -> None:
    """Put `state` into `module`, in the module's own type, tensor by tensor: no second copy of the weights is made.

    Args:
        parts: beginnings of the names that the checkpoint must have whole; None: all. Others (a bridge, experts) keep
            their weights.

    Raises:
        WeightsError: a tensor has no place or another shape, or one is missing.
    """
    own = module.state_dict()
    lacking = [name for name in own if (parts is None or name.split(".")[0] in parts) and name not in state]
    strange = [name for name in state if name not in own]
    shapes = [name for name in state if name in own and own[name].shape != state[name].shape]
    for problem, names in (
        ("lacks", lacking),
        ("has no place here for", strange),
        ("has other shapes for", shapes),
    ):
        if names:
            raise WeightsError(
                f"the checkpoint {problem} {', '.join(_shown(name, own, state) for name in sorted(names)[:3])}"
                f" ({len(names)} in all)",
                where=where,
                remedy="the recipe's architecture and the checkpoint must be of the same model: correct one of them",
            )
    module.load_state_dict(dict(state), strict=False)


def _shown(name: str, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """A name, with both shapes where they differ."""
    if name not in own or name not in state:
        return name
    return f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
