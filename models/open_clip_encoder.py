"""open_clip models, such as those with an XLM-RoBERTa text encoder, for scoring captions in other languages.

A model is a folder in open_clip's own layout: `open_clip_config.json`, `open_clip_model.safetensors` and the
tokenizer's files. `text_config/`, where it is there, holds the Hugging Face config of the text encoder, so that
building it asks no hub; `save` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from models import tensors, weights
from models.weights import WeightsError

CONFIG_FILE, WEIGHTS_FILE, TEXT_CONFIG = "open_clip_config.json", "open_clip_model.safetensors", "text_config"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "sentencepiece.bpe.model", "spiece.model",
)  # fmt: skip
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


class OpenCLIP:
    """An open_clip model with its preprocessing and tokenizer; a `models.pair_encoder.PairEncoder`."""

    def __init__(
        self,
        network: torch.nn.Module,
        tokenizer: Any,
        document: dict[str, Any],
        files: dict[str, bytes],
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        """`document` is what stands in `open_clip_config.json`, `files` are the tokenizer's, by name."""
        from open_clip.transform import PreprocessCfg, image_transform_v2
        from torchvision.transforms import Normalize, ToTensor

        self.network: Any = network.to(device).eval()
        self.device = torch.device(device)
        self.tokenizer = tokenizer
        self.document = document
        self._files = files
        visual: Any = network.visual
        config = PreprocessCfg(**visual.preprocess_cfg)
        self.transform: Any = image_transform_v2(config, is_train=False)
        # Up to the tensor: what comes after is done on the model's device, for a whole batch.
        self._steps = [
            step for step in self.transform.transforms if not isinstance(step, ToTensor | Normalize)
        ]
        self._mean, self._std = (
            torch.tensor(values, device=self.device).view(3, 1, 1) for values in (config.mean, config.std)
        )
        # A text encoder of open_clip's own attends to its padding; those of transformers mask it.
        text = getattr(network, "text", None)
        self._masked = hasattr(text, "transformer") and hasattr(text, "pooler")
        self._pad = int(text.config.pad_token_id) if self._masked and text is not None else 0

    @property
    def image_size(self) -> int:
        size = self.network.visual.image_size
        return int(size[0] if isinstance(size, tuple) else size)

    def prepare(self, image: Image.Image) -> Pixels:
        """Resized and cropped as the model's own preprocessing does it."""
        for step in self._steps:
            image = step(image)
        return np.asarray(image)

    def pixels(self, squares: Sequence[Pixels]) -> Tensor:
        batch = torch.from_numpy(np.stack(list(squares))).to(self.device, non_blocking=True)
        scaled = batch.permute(0, 3, 1, 2).to(torch.float32).div(255)
        return scaled.sub_(self._mean).div_(self._std).contiguous()

    def ids(self, text: str) -> list[int]:
        row: list[int] = self.tokenizer([text])[0].tolist()
        while self._masked and len(row) > 1 and row[-1] == self._pad:
            row.pop()
        return row

    def padded(self, rows: Sequence[Sequence[int]]) -> Tensor:
        length = max(map(len, rows))
        return torch.tensor([[*row, *[self._pad] * (length - len(row))] for row in rows])

    def image_features(self, batch: Tensor) -> Tensor:
        return functional.normalize(self.network.encode_image(batch.to(self.device)).float(), dim=-1)

    def text_features(self, tokens: Tensor) -> Tensor:
        return functional.normalize(self.network.encode_text(tokens.to(self.device)).float(), dim=-1)

    def save(self, folder: Path) -> None:
        """Write the model in open_clip's layout, with all that building it needs."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors.save(folder / WEIGHTS_FILE, self.network.state_dict())
        for name, content in self._files.items():
            # As they came: a tokenizer that was used writes others.
            (folder / name).write_bytes(content)
        if self._masked:
            self.network.text.config.save_pretrained(str(folder / TEXT_CONFIG))
        text = json.dumps(self.document, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def load(folder: Path, *, device: str | torch.device = "cpu") -> OpenCLIP:
    """Load a folder in open_clip's layout.

    Raises:
        WeightsError: files are missing, no safetensors, or do not fit each other.
    """
    weights.require(folder, [CONFIG_FILE, WEIGHTS_FILE])
    document = weights.read_json(folder / CONFIG_FILE)
    if not isinstance(document.get("model_cfg"), dict):
        raise WeightsError(
            "this config has no `model_cfg`", where=folder / CONFIG_FILE, remedy="copy the file again"
        )
    import open_clip  # seconds, which most runs need not spend

    overrides: dict[str, Any] = {}
    text = document["model_cfg"].get("text_cfg", {})
    if "hf_model_name" in text and (folder / TEXT_CONFIG).is_dir():
        named = str(folder / TEXT_CONFIG)
        overrides["text_cfg"] = {**text, "hf_model_name": named, "hf_model_pretrained": False}
    name = f"local-dir:{folder}"
    try:
        network = open_clip.create_model(name, load_weights=True, **overrides)
        tokenizer = open_clip.get_tokenizer(name)
    except (RuntimeError, OSError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(
            f"open_clip cannot build this model: {str(error).splitlines()[0] if str(error) else error!r}",
            where=folder,
            remedy="give a folder in open_clip's layout; a text encoder of transformers needs its config in"
            f" {TEXT_CONFIG}/ where no hub is reachable",
        ) from error
    files = {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}
    return OpenCLIP(network, tokenizer, document, files, device=device)
