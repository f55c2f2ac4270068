"""Where the model runs, and how much of that device's peak it reaches."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.pair_encoder import PairEncoder
from pipelines.errors import BadInput

_DRIVER = Path("/proc/driver/nvidia/version")
_PEAKS = {
    "B200": 2250e12, "GB200": 2250e12, "H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12,
    "A10": 125e12, "L4": 121e12,
}  # fmt: skip
"""Dense bfloat16 products per second, from the makers' data sheets."""
_TEXT_TOKENS = 16


def pick(device: str) -> torch.device:
    """The device of this rank.

    Raises:
        BadInput: a GPU was asked for, or the machine has one, and torch cannot use it: on the CPU the work
            would take a hundred times as long, and nobody would know why.
    """
    if device != "cpu" and torch.cuda.is_available():
        return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    if device == "cuda":
        raise BadInput(
            "a GPU was asked for, and there is none that torch can use",
            where="device",
            remedy="set `device: auto` or `device: cpu`",
        )
    if device == "auto" and _DRIVER.exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        raise BadInput(
            "this machine has an NVIDIA driver, and torch cannot use its GPU",
            where=_DRIVER,
            remedy="mend the driver or torch's CUDA version; `device: cpu` runs on the CPU all the same",
        )
    return torch.device("cpu")


def name(device: torch.device) -> str:
    """What the device is called: a GPU's model, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak(device: torch.device) -> float | None:
    """The device's peak in bfloat16 operations per second; None where it is not known."""
    words = name(device).upper().replace("-", " ").split()
    return next((peak for model, peak in _PEAKS.items() if model in words), None)


class Flops:
    """The model's own operations (two per multiply-add), measured on one image and one short caption."""

    def __init__(self, encoder: PairEncoder) -> None:
        blank = torch.zeros(1, 3, encoder.image_size, encoder.image_size)
        ids = encoder.ids("a")
        tokens = encoder.padded([(ids + [ids[-1]] * _TEXT_TOKENS)[: max(_TEXT_TOKENS, len(ids))]])
        with torch.inference_mode():
            with FlopCounterMode(display=False) as counter:
                encoder.image_features(blank)
            self.per_image = counter.get_total_flops()
            with FlopCounterMode(display=False) as counter:
                encoder.text_features(tokens)
            # Attention's own products, which grow with the square, are a few percent at a caption's length.
            self.per_token = counter.get_total_flops() / tokens.shape[1]

    def of(self, images: int, tokens: int) -> float:
        """Operations on so many images and tokens, padding included."""
        return self.per_image * images + self.per_token * tokens
