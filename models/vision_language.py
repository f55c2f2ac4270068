"""The vision-language model: a vision encoder with queries, a bridge, and a language model.

The visual module is h, the language model f of the MpM paper (section 3): f answers given the
question and h(image). The image's tokens take the places of `<|image|>` tokens in the prompt.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from models.chat import END_OF_TEXT, IMAGE, TURN_END, prompt, token_id
from models.language_model import load_language_model, save_language_model, supervised_loss
from models.vision import PIXEL_MEAN, PIXEL_STD, VisionConfig, VisionEncoder
from models.weights import WeightsError

VISION_CONFIG_FILE = "vision_config.json"
VISION_FILE = "visual.safetensors"
LANGUAGE_FOLDER = "language_model"


class VisualModule(nn.Module):
    """h: the vision encoder and the linear bridge into the language model's width."""

    def __init__(self, config: VisionConfig, language_width: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = VisionEncoder(config)
        self.bridge = nn.Linear(config.width, language_width)

    def forward(self, pixels: Tensor) -> Tensor:
        """(images, 3, size, size) normalised -> (images, queries, language width)."""
        seen: Tensor = self.bridge(self.encoder(pixels))
        return seen


def make_visual_module(config: VisionConfig, language_width: int, *, seed: int) -> VisualModule:
    """The visual module with random weights."""
    torch.manual_seed(seed)
    return VisualModule(config, language_width)


def save_visual_module(module: VisualModule, folder: Path, state: dict[str, Tensor] | None = None) -> None:
    """Write its shape and weights; `state` replaces the module's own weights where they are elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = {**asdict(module.config), "language_width": module.bridge.out_features}
    (folder / VISION_CONFIG_FILE).write_text(json.dumps(shape, indent=1) + "\n")
    weights = {name: value.detach().contiguous() for name, value in (state or module.state_dict()).items()}
    save_file(weights, folder / VISION_FILE)


def load_visual_module(folder: Path) -> VisualModule:
    """The visual module from its folder.

    Raises:
        WeightsError: a file is missing or does not fit the shape that the configuration says.
    """
    for name in (VISION_CONFIG_FILE, VISION_FILE):
        if not (folder / name).is_file():
            raise WeightsError(f"{folder} has no {name}")
    shape = json.loads((folder / VISION_CONFIG_FILE).read_text())
    width = shape.pop("language_width")
    module = VisualModule(VisionConfig(**shape), width)
    try:
        module.load_state_dict(load_file(folder / VISION_FILE))
    except RuntimeError as error:
        raise WeightsError(f"{folder / VISION_FILE} does not fit {VISION_CONFIG_FILE}: {error}") from None
    return module


def preprocess(image: Image.Image, size: int) -> np.ndarray:
    """The image squashed to a square, bicubic, as uint8 of shape (3, size, size)."""
    square = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def normalise(pixels: Tensor) -> Tensor:
    """uint8 (images, 3, size, size) -> float32 with CLIP's mean and deviation taken out."""
    mean = torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1)
    deviation = torch.tensor(PIXEL_STD).view(1, 3, 1, 1)
    return (pixels.float() / 255 - mean) / deviation


class VisionLanguageModel(nn.Module):
    """f(question, h(image))."""

    def __init__(self, visual: VisualModule, language_model: PreTrainedModel, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.visual = visual
        self.language_model = language_model
        self.tokenizer = tokenizer
        self.image_id = token_id(tokenizer, IMAGE)

    @property
    def image_tokens(self) -> int:
        return self.visual.config.queries

    def embed(self, ids: Tensor, seen: Tensor | None) -> Tensor:
        """Token embeddings (batch, tokens, width), with the states of the images in their places.

        `seen` (images, queries, width) in the order in which the images stand in the batch.
        """
        embeddings = self.language_model.get_input_embeddings()(ids)
        if seen is None:
            return embeddings
        places = torch.eq(ids, self.image_id).unsqueeze(-1)
        return embeddings.masked_scatter(places, seen.to(embeddings.dtype))

    def forward(self, ids: Tensor, labels: Tensor, pixels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Summed loss over the supervised tokens, and their number; one image per row, or none."""
        seen = None if pixels is None else self.visual(pixels)
        return supervised_loss(self.language_model, self.embed(ids, seen), labels)

    @torch.inference_mode()
    def see(self, images: Sequence[Image.Image], *, batch_size: int = 256) -> Tensor:
        """The images' states (images, queries, width), to be reused over questions about them."""
        size = self.visual.config.image_size
        squares = torch.from_numpy(np.stack([preprocess(image, size) for image in images]))
        return torch.cat([self.visual(normalise(part)) for part in squares.split(batch_size)])

    def answer(
        self, images: Sequence[Image.Image], questions: Sequence[str], *,
        max_new_tokens: int = 24, batch_size: int = 64,
    ) -> list[str]:  # fmt: skip
        """The greedy answer to each question about the image at the same place."""
        seen = self.see(images)
        return self.answer_seen(seen, questions, max_new_tokens=max_new_tokens, batch_size=batch_size)

    @torch.inference_mode()
    def answer_seen(
        self, seen: Tensor, questions: Sequence[str], *, max_new_tokens: int = 24, batch_size: int = 64
    ) -> list[str]:
        """As `answer`, for image states that `see` gave: (questions, queries, width)."""
        prompts = [
            self.tokenizer.encode(
                prompt(question, image_tokens=self.image_tokens), add_special_tokens=False
            ).ids
            for question in questions
        ]
        # Batches of like length: less padding, and the order is put back at the end.
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        answers = [""] * len(prompts)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            replies = self._generate([prompts[index] for index in chosen], seen[chosen], max_new_tokens)
            for index, reply in zip(chosen, replies, strict=True):
                answers[index] = reply
        return answers

    def _generate(self, prompts: list[list[int]], seen: Tensor, max_new_tokens: int) -> list[str]:
        # Padding stands on the left, so that every row's answer starts at the same place.
        pad, end = (token_id(self.tokenizer, mark) for mark in (END_OF_TEXT, TURN_END))
        longest = max(map(len, prompts))
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in prompts])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])
        generate: Any = self.language_model.generate
        tokens = generate(
            inputs_embeds=self.embed(ids, seen), attention_mask=mask, max_new_tokens=max_new_tokens,
            do_sample=False, eos_token_id=end, pad_token_id=pad,
        )  # fmt: skip
        return [
            text.strip() for text in self.tokenizer.decode_batch(tokens.tolist(), skip_special_tokens=True)
        ]

    def save(self, folder: Path) -> None:
        """Write the model: language_model/ (a transformers folder) and the visual module."""
        save_visual_module(self.visual, folder)
        save_language_model(self.language_model, self.tokenizer, folder / LANGUAGE_FOLDER)


def load(folder: Path) -> VisionLanguageModel:
    """The model from the folder that `save` wrote, in evaluation mode.

    Raises:
        WeightsError: a file is missing or does not fit.
    """
    language_model, tokenizer = load_language_model(folder / LANGUAGE_FOLDER)
    return VisionLanguageModel(load_visual_module(folder), language_model, tokenizer).eval()
