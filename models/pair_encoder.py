"""What scores image-caption pairs, whatever its architecture: one interface, and one way to load it.

`load` tells a Chinese-CLIP from an open_clip model by the files of its folder. Callers use nothing but this
interface, so that another language is another model, not another stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models import clip, open_clip_encoder, weights

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


class PairEncoder(Protocol):
    """An image encoder and a text encoder whose unit embeddings are compared by their cosine."""

    network: Any
    device: torch.device

    @property
    def image_size(self) -> int:
        """Side of the square that the image encoder takes, in pixels."""
        ...

    def prepare(self, image: Image.Image) -> Pixels:
        """The image as the encoder takes it, before normalisation: uint8 (side, side, 3)."""
        ...

    def pixels(self, squares: Sequence[Pixels]) -> Tensor:
        """Prepared images as normalised float32 (N, 3, side, side), on the model's device."""
        ...

    def ids(self, text: str) -> list[int]:
        """The token ids of a caption, special tokens included, without padding where the model allows."""
        ...

    def padded(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Token ids as one tensor (N, length of the longest)."""
        ...

    def image_features(self, batch: Tensor) -> Tensor:
        """Unit embeddings (N, width), float32, of what `pixels` gave."""
        ...

    def text_features(self, tokens: Tensor) -> Tensor:
        """Unit embeddings (N, width), float32, of what `padded` gave."""
        ...

    def save(self, folder: Path) -> None:
        """Write the whole model, such that `load` reads it with no model hub."""
        ...


def load(source: str | Path, *, sha256: str | None = None, device: str | torch.device = "cpu") -> PairEncoder:
    """Load the model at a path or hub id; `sha256` pins its content.

    Raises:
        WeightsError: files are missing, damaged, of another digest or of another architecture.
    """
    if str(source).endswith(".pt"):
        return clip.load(source, sha256=sha256, device=device)
    path = weights.locate(source)
    if (path / open_clip_encoder.CONFIG_FILE).is_file():
        if sha256 is not None:
            weights.verify(path, sha256)
        return open_clip_encoder.load(path, device=device)
    return clip.load(source, sha256=sha256, device=device)
