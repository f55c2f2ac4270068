"""The visual module: an encoder, a bridge into the language model's width, and Parrot's experts where a recipe has them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn

from models import tensors
from models.architecture import Beit3Encoder, Bridge, ClipEncoder, Encoder, QueryTransformer, Visual
from models.beit3 import Beit3
from models.clip_vision import ClipVision
from models.multilingual_moe import MultilingualMoE
from models.preprocessing import normalise, preprocess
from models.vision import VisionConfig, VisionEncoder
from models.weights import WeightsError, read_json, require

VISION_CONFIG_FILE = "vision_config.json"
VISION_FILE = "visual.safetensors"


class VisualModule(nn.Module):
    """h of the MpM paper (section 3): from an image to states that stand among a prompt's word embeddings."""

    def __init__(self, config: Visual, language_width: int) -> None:
        super().__init__()
        self.config, self.language_width = config, language_width
        self.encoder = make_encoder(config.encoder)
        self.bridge = make_bridge(config.bridge, config.encoder.width, language_width)
        self.moe = None if config.experts is None else MultilingualMoE(config.experts, language_width)

    @property
    def image_size(self) -> int:
        """Side of the square that the encoder takes, in pixels."""
        return self.config.encoder.image_size

    @property
    def tokens(self) -> int:
        """Places that an image takes in the prompt."""
        return self.config.encoder.tokens

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """The image as a square of uint8 (3, size, size)."""
        return preprocess(image, self.image_size, self.config.preprocessing)

    def forward(self, pixels: Tensor) -> Tensor:
        """The images' states in the language model's width, before any experts: (images, states, language width).

        `pixels` (images, 3, size, size): uint8, or floats that are already normalised. CLIP's [CLS] state comes first.
        """
        if pixels.dtype == torch.uint8:
            preprocessing = self.config.preprocessing
            pixels = normalise(pixels, preprocessing.mean, preprocessing.std)
        weight = next(self.bridge.parameters())
        seen: Tensor = self.bridge(self.encoder(pixels.to(weight.dtype)))
        return seen

    def placed(self, seen: Tensor) -> Tensor:
        """What takes an image's places in the prompt: (images, tokens, language width), without a [CLS] that is not kept."""
        return seen[:, -self.tokens :]


def make_encoder(config: Encoder) -> nn.Module:
    """The encoder of a configuration, with random weights."""
    match config:
        case QueryTransformer():
            return VisionEncoder(VisionConfig(**config.model_dump(exclude={"kind"})))
        case ClipEncoder():
            return ClipVision(config)
        case Beit3Encoder():
            return Beit3(config)


def make_bridge(config: Bridge, width: int, language_width: int) -> nn.Module:
    """The bridge of a configuration, with random weights."""
    if config.kind == "linear":
        return nn.Linear(width, language_width)
    return nn.Sequential(
        nn.Linear(width, language_width), nn.GELU(), nn.Linear(language_width, language_width)
    )


def make_visual_module(config: Visual | VisionConfig, language_width: int, *, seed: int) -> VisualModule:
    """The visual module with random weights; of a `VisionConfig`, the small one with a linear bridge."""
    torch.manual_seed(seed)
    return VisualModule(config if isinstance(config, Visual) else small(config), language_width)


def small(config: VisionConfig) -> Visual:
    """The small vision transformer with queries and a linear bridge: what the quickstart makes."""
    return Visual(encoder=QueryTransformer(**vars(config)))


def save_visual_module(module: VisualModule, folder: Path, state: dict[str, Tensor] | None = None) -> None:
    """Write its shape and weights; `state` replaces the module's own weights where they are elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"language_width": module.language_width, **module.config.model_dump(mode="json")}
    (folder / VISION_CONFIG_FILE).write_text(json.dumps(document, indent=1) + "\n")
    tensors.save(folder / VISION_FILE, state or module.state_dict())


def load_visual_module(folder: Path) -> VisualModule:
    """The visual module from its folder.

    Raises:
        WeightsError: a file is missing or does not fit the shape that the configuration says.
    """
    require(folder, [VISION_CONFIG_FILE, VISION_FILE])
    document = read_json(folder / VISION_CONFIG_FILE)
    try:
        width = int(document.pop("language_width"))
        config = Visual(**document)
    except (KeyError, ValueError, ValidationError) as error:
        raise WeightsError(
            f"this file describes no visual module: {error}",
            where=folder / VISION_CONFIG_FILE,
            remedy="run the stage that makes the model again",
        ) from None
    module = VisualModule(config, width)
    tensors.load_into(module, tensors.load_file(folder / VISION_FILE), where=folder / VISION_FILE)
    return module
