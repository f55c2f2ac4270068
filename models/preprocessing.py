"""From an image to the square of pixels that an encoder takes; one PIL resampling everywhere."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.architecture import CLIP_MEAN, CLIP_STD, Preprocessing

DEFAULT = Preprocessing()


def preprocess(image: Image.Image, size: int, preprocessing: Preprocessing = DEFAULT) -> np.ndarray:
    """The image as a square, bicubic: uint8 of shape (3, size, size)."""
    image = image.convert("RGB")
    match preprocessing.fit:
        case "squash":
            square = image.resize((size, size), Image.Resampling.BICUBIC)
        case "pad":
            square = padded(image, preprocessing.mean).resize((size, size), Image.Resampling.BICUBIC)
        case "crop":
            square = cropped(image, size)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def padded(image: Image.Image, mean: tuple[float, float, float]) -> Image.Image:
    """The image in the middle of a square of the mean colour (LLaVA-1.5, Parrot)."""
    side = max(image.size)
    if image.width == image.height:
        return image
    red, green, blue = (int(channel * 255) for channel in mean)
    square = Image.new("RGB", (side, side), (red, green, blue))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def cropped(image: Image.Image, size: int) -> Image.Image:
    """The shorter side brought to `size`, then the middle square (CLIP)."""
    shorter = min(image.size)
    # The longer side is cut to a whole pixel, as CLIP's processor does.
    width, height = (int(side * size / shorter) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    # CLIP's processor puts an odd pixel of the vertical and horizontal margins before the square.
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def normalise(
    pixels: Tensor, mean: tuple[float, ...] = CLIP_MEAN, std: tuple[float, ...] = CLIP_STD
) -> Tensor:
    """uint8 (images, 3, size, size) -> float32, mean and deviation taken out."""
    centre = torch.tensor(mean, device=pixels.device).view(1, 3, 1, 1)
    spread = torch.tensor(std, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.float() / 255 - centre) / spread
