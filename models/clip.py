"""Chinese-CLIP: how well a caption fits an image, as the cosine of two embeddings.

One architecture (`transformers.ChineseCLIPModel`), one preprocessing and one tokenizer (cn_clip's),
whatever the source of the weights: a folder in the layout of transformers, made here or elsewhere,
a hub id, or a `.pt` file of cn_clip. Promise: scores within 1e-4 of cn_clip's for the same weights.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from models import cn_clip_format, tensors, weights
from models.weights import WeightsError
from models.wordpiece import Wordpiece

TEXT_LENGTH = 52
"""Tokens of a caption, [CLS] and [SEP] included (cn_clip; the positions would allow 512)."""
VOCABULARY_SIZE = 21_128
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

CONFIG_FILE, VOCABULARY_FILE, PREPROCESSOR_FILE = "config.json", "vocab.txt", "preprocessor_config.json"


def square(image: Image.Image, side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The image squashed to `side` x `side` without a crop: uint8, (side, side, 3).

    As cn_clip does it: bicubic, in the image's own mode, and only then to RGB. So a palette is
    resized by nearest neighbour, transparency is dropped, and EXIF rotation is not applied.
    """
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image.convert("RGB"))


def pixels(squares: Sequence[np.ndarray[Any, np.dtype[np.uint8]]] | np.ndarray[Any, Any]) -> Tensor:
    """Squares of equal size as normalised float32 (N, 3, side, side), on the CPU."""
    return normalised(torch.from_numpy(np.stack(list(squares))))


def normalised(squares: Tensor) -> Tensor:
    """uint8 (N, side, side, 3) as normalised float32 (N, 3, side, side), on the same device."""
    batch = squares.permute(0, 3, 1, 2).to(torch.float32).div(255)
    mean, std = (
        torch.tensor(values, device=squares.device).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD)
    )
    return batch.sub_(mean).div_(std).contiguous()


def bundled_vocabulary() -> Path:
    """The vocabulary of Chinese-CLIP (21,128 pieces), from the cn_clip package, which is not imported."""
    spec = importlib.util.find_spec("cn_clip")
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(
            "the package cn_clip is not installed", remedy="install the project's requirements"
        )
    return Path(spec.submodule_search_locations[0]) / "clip" / "vocab.txt"


class ChineseCLIP:
    """A Chinese-CLIP with its preprocessing and tokenizer, ready to score."""

    def __init__(
        self, network: torch.nn.Module, vocabulary: Path, *, device: str | torch.device = "cpu"
    ) -> None:
        self.network: Any = network.to(device).eval()
        self.device = torch.device(device)
        self.vocabulary = vocabulary
        self.tokenizer = Wordpiece.from_file(vocabulary)

    @property
    def config(self) -> Any:
        return self.network.config

    @property
    def image_size(self) -> int:
        """Side of the square that the image encoder takes, in pixels."""
        return int(self.config.vision_config.image_size)

    def prepare(self, image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The image squashed as the encoder takes it: see `square`."""
        return square(image, self.image_size)

    def pixels(self, squares: Sequence[np.ndarray[Any, np.dtype[np.uint8]]]) -> Tensor:
        """Squares of equal size as normalised float32 (N, 3, side, side), on the model's device.

        Bytes are what travels to the device: a quarter of what floats would take.
        """
        return normalised(torch.from_numpy(np.stack(list(squares))).to(self.device, non_blocking=True))

    def ids(self, text: str) -> list[int]:
        """The token ids of a caption, at most TEXT_LENGTH."""
        return self.tokenizer.ids(text, TEXT_LENGTH)

    def padded(self, rows: Sequence[Sequence[int]], *, length: int | None = None) -> Tensor:
        """Token ids as one tensor (N, `length`), by default as long as the longest row."""
        length = length or max(map(len, rows))
        return torch.tensor([[*row, *[self.tokenizer.pad] * (length - len(row))] for row in rows])

    def image_features(self, batch: Tensor) -> Tensor:
        """Unit embeddings (N, width) of normalised pixels (N, 3, side, side)."""
        return functional.normalize(self.image_states(batch).float(), dim=-1)

    def text_features(self, tokens: Tensor) -> Tensor:
        """Unit embeddings (N, width) of padded token ids (N, length)."""
        return functional.normalize(self.text_states(tokens).float(), dim=-1)

    def image_states(self, batch: Tensor) -> Tensor:
        """The image embeddings before they are brought to unit length."""
        found: Tensor = self.network.get_image_features(pixel_values=batch.to(self.device)).pooler_output
        return found

    def text_states(self, tokens: Tensor) -> Tensor:
        """The text embeddings before they are brought to unit length."""
        tokens = tokens.to(self.device)
        mask = tokens.ne(self.tokenizer.pad).long()
        found: Tensor = self.network.get_text_features(input_ids=tokens, attention_mask=mask).pooler_output
        return found

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit embeddings of images: float32 (N, width), on the model's device."""
        return self.image_features(pixels([square(image, self.image_size) for image in images]))

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings of captions: float32 (N, width), on the model's device."""
        return self.text_features(self.padded([self.ids(text) for text in texts]))

    def save(self, folder: Path) -> None:
        """Write the model in the layout of transformers, with the preprocessing that it was trained with.

        The same weights give the same bytes.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tensors.save(folder / weights.WEIGHTS_FILE, self.network.state_dict())
        config = self.config.to_dict() | {"architectures": ["ChineseCLIPModel"]}
        _write_json(folder / CONFIG_FILE, config)
        _write_json(folder / PREPROCESSOR_FILE, preprocessor_document(self.image_size))
        (folder / VOCABULARY_FILE).write_bytes(self.vocabulary.read_bytes())


def cosine(images: Tensor, texts: Tensor) -> Tensor:
    """The score of each pair: the cosine of row i of `images` and row i of `texts`, both of unit length."""
    return (images * texts).sum(dim=-1)


def preprocessor_document(image_size: int) -> dict[str, Any]:
    """What transformers' image processor must be told so that it squashes as cn_clip does, and never crops."""
    return {
        "image_processor_type": "ChineseCLIPImageProcessor",
        "do_resize": True,
        "size": {"height": image_size, "width": image_size},
        "resample": int(Image.Resampling.BICUBIC),
        "do_center_crop": False,
        "do_convert_rgb": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(PIXEL_MEAN),
        "image_std": list(PIXEL_STD),
    }


def build(config: dict[str, Any]) -> torch.nn.Module:
    """A network of this `ChineseCLIPConfig` document, its weights drawn from torch's generator."""
    # transformers takes seconds to import, and a stage has work to start meanwhile.
    from transformers import ChineseCLIPConfig, ChineseCLIPModel

    network: torch.nn.Module = ChineseCLIPModel(ChineseCLIPConfig(**config))
    return network


def load(source: str | Path, *, sha256: str | None = None, device: str | torch.device = "cpu") -> ChineseCLIP:
    """Load a Chinese-CLIP from a folder, a `.pt` file of cn_clip, or a hub id.

    Of a hub's repository, safetensors are taken where it has them, otherwise its `clip_cn_*.pt`.
    `sha256` pins the folder or the file (`models.weights.digest`).

    Raises:
        WeightsError: files are missing, damaged, of another digest or of another architecture.
    """
    path = weights.locate(source, patterns=weights.HUB_PATTERNS)
    if path.is_dir() and not Path(source).exists() and not list(path.glob("*.safetensors")):
        path = weights.locate(source, patterns=(*weights.HUB_PATTERNS, "clip_cn_*.pt"))
    if path.is_dir() and not any(path.glob("*.safetensors*")):
        found = sorted(path.glob("clip_cn_*.pt"))
        path = found[0] if len(found) == 1 else path
    if sha256 is not None:
        weights.verify(path, sha256)
    return _load_cn_clip(path, device) if path.is_file() else _load_folder(path, device)


def _load_cn_clip(path: Path, device: str | torch.device) -> ChineseCLIP:
    state = cn_clip_format.read_state(path)
    network = build(cn_clip_format.config_of(state))
    tensors.load_into(network, cn_clip_format.convert(state), where=path)
    return ChineseCLIP(network, bundled_vocabulary(), device=device)


def _load_folder(folder: Path, device: str | torch.device) -> ChineseCLIP:
    weights.require(folder, [CONFIG_FILE, VOCABULARY_FILE])
    config = weights.read_json(folder / CONFIG_FILE)
    if config.get("model_type") != "chinese_clip":
        raise WeightsError(
            f"this config describes {config.get('model_type')!r}, not 'chinese_clip'",
            where=folder / CONFIG_FILE,
            remedy="give the folder of a Chinese-CLIP model",
        )
    network = build(config)
    state = {
        name: tensor.float()
        for name, tensor in tensors.load(folder).items()
        # Older transformers stored these; they are counters and a pooler that the model does not use.
        if not name.endswith(".position_ids") and not name.startswith("text_model.pooler.")
    }
    tensors.load_into(network, state, where=folder)
    return ChineseCLIP(network, folder / VOCABULARY_FILE, device=device)


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(
        json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )
