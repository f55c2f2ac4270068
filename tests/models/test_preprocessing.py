"""Pixels as the published models were trained on them: against transformers' own processors, which resample with PIL too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import center_crop, resize
from torchvision.transforms.v2 import InterpolationMode

from models.architecture import CLIP_MEAN, CLIP_STD, HALF, Preprocessing
from models.preprocessing import normalise, preprocess

SHAPES = [(40, 40), (90, 40), (40, 91), (33, 200), (300, 20)]


def picture(size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(sum(size)).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", SHAPES)
def test_crop_is_clips(size: tuple[int, int]) -> None:
    image = picture(size)
    expected = center_crop(resize(image, 32, InterpolationMode.BICUBIC), [32, 32])

    ours = preprocess(image, 32, Preprocessing(fit="crop"))

    assert np.array_equal(ours.transpose(1, 2, 0), np.asarray(expected))


@pytest.mark.parametrize("size", SHAPES)
def test_pad_puts_the_whole_image_in_the_middle_of_the_mean_colour(size: tuple[int, int]) -> None:
    image, side = picture(size), max(size)
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[:] = [int(value * 255) for value in CLIP_MEAN]
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    canvas[top : top + size[1], left : left + size[0]] = np.asarray(image)
    expected = Image.fromarray(canvas).resize((24, 24), Image.Resampling.BICUBIC)

    ours = preprocess(image, 24, Preprocessing(fit="pad"))

    assert np.array_equal(ours.transpose(1, 2, 0), np.asarray(expected))


@pytest.mark.parametrize("size", SHAPES)
def test_squash_is_the_processor_of_transformers_without_a_crop(size: tuple[int, int]) -> None:
    from transformers import ViTImageProcessorPil

    processor = ViTImageProcessorPil(
        size={"height": 32, "width": 32}, resample=Image.Resampling.BICUBIC, image_mean=HALF, image_std=HALF
    )
    expected = processor(picture(size), return_tensors="pt").pixel_values

    squares = torch.from_numpy(preprocess(picture(size), 32))[None]

    torch.testing.assert_close(normalise(squares, HALF, HALF), expected, atol=1e-6, rtol=0)


def test_modes_other_than_rgb_become_rgb() -> None:
    for mode in ("L", "P", "RGBA", "CMYK", "1"):
        assert preprocess(picture((20, 10)).convert(mode), 8).shape == (3, 8, 8)


def test_pixels_are_centred_by_the_mean_and_deviation_given() -> None:
    white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)

    for mean, std in ((CLIP_MEAN, CLIP_STD), (HALF, HALF)):
        expected = (1 - torch.tensor(mean)) / torch.tensor(std)
        torch.testing.assert_close(normalise(white, mean, std)[0, :, 0, 0], expected)
