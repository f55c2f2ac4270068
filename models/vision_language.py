"""The vision-language model: a visual module and a language model, in parts that a recipe trains by name.

f answers given the question and h(image) (MpM paper, section 3). The image's states take the places of
placeholders among the prompt's word embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from models import backbone, parts
from models.backbone import Backbone
from models.chat import IGNORED
from models.chat_folder import LANGUAGE_FOLDER, Vocabulary, make_chat
from models.chat_template import Chat, Name
from models.cpm_bee import MOST_TOKENS, CpmBee
from models.language_model import Supervision, supervised_losses
from models.packing import Packing
from models.preprocessing import normalise, preprocess
from models.visual import (
    VISION_CONFIG_FILE,
    VISION_FILE,
    VisualModule,
    load_visual_module,
    make_visual_module,
    save_visual_module,
)

__all__ = [
    "VISION_CONFIG_FILE", "VISION_FILE", "VisionLanguageModel", "VisualModule", "load", "load_visual_module",
    "make_visual_module", "normalise", "preprocess", "save_visual_module",
]  # fmt: skip


class VisionLanguageModel(nn.Module):
    """f(question, h(image)). `parts()` names what can be trained or frozen."""

    def __init__(
        self, visual: VisualModule, language_model: Any, tokenizer: Vocabulary, *,
        template: Name = "chatml", system: str = "",
    ) -> None:  # fmt: skip
        """`language_model`: a causal model of transformers, or `CpmBee`.

        Raises:
            WeightsError: the tokenizer lacks a mark of the template.
        """
        super().__init__()
        self.visual = visual
        self.language_model = language_model
        self.tokenizer = tokenizer
        self.template, self.system = template, system
        self.chat: Chat = make_chat(tokenizer, template, system, visual.tokens)
        self.routing: Tensor | None = None
        """Weight of each expert for each image of the last forward pass, (images, experts); none without experts."""

    @property
    def image_tokens(self) -> int:
        """Places that an image takes in a prompt."""
        return self.visual.tokens

    @property
    def image_id(self) -> int:
        """The id that stands at each of these places."""
        return self.chat.image_id

    @property
    def pad_id(self) -> int:
        """The id that fills rows up."""
        return self.chat.pad_id

    @property
    def device(self) -> torch.device:
        return next(self.visual.parameters()).device

    @property
    def positions(self) -> int | None:
        """Most tokens of prompt and answer together that the language model was made for; None where it does not say."""
        if isinstance(self.language_model, CpmBee):
            return MOST_TOKENS
        found: int | None = getattr(self.language_model.config, "max_position_embeddings", None)
        return found

    def parts(self) -> dict[str, list[parts.NamedParameter]]:
        """Every parameter, in exactly one named part (`models.parts`)."""
        return parts.parts(self)

    def embed(
        self, ids: Tensor, seen: Tensor | None, *, labels: Tensor | None = None,
        position_ids: Tensor | None = None, blank: bool = False,
    ) -> Tensor:  # fmt: skip
        """Word embeddings (rows, tokens, width), with the states of the images in their places.

        Args:
            ids: (rows, tokens).
            seen: what `visual` gave, (images, states, width), in the order in which the images stand in the batch.
            labels, position_ids: as for `forward`; they tell an image's own prompt where experts are routed by it.
            blank: `seen` is of one image that stands nowhere: the embeddings are the words', and all visual weights have
                part in them, with gradients of zero.
        """
        places = torch.eq(ids, self.image_id)
        words = self.language_model.get_input_embeddings()(ids.masked_fill(places, 0))
        if seen is None:
            return words
        moe = self.visual.moe
        if moe is not None:
            mask = (
                places.new_zeros(1, ids.numel())
                if blank
                else prompts_of_images(
                    ids, places, self.pad_id, self.image_tokens,
                    labels=labels, position_ids=position_ids, guide=moe.config.guide,
                )
            )  # fmt: skip
            seen, weights = moe(seen, words.flatten(0, 1), mask)
            self.routing = None if blank else weights.detach()
        return words.masked_scatter(places.unsqueeze(-1), self.visual.placed(seen).to(words.dtype))

    def forward(
        self, ids: Tensor, labels: Tensor, pixels: Tensor | None = None,
        packing: Packing | None = None, supervision: Supervision | None = None,
    ) -> Tensor:  # fmt: skip
        """The loss of each supervised token, in the batch's order: (supervised), float32.

        Args:
            ids, labels: (rows, tokens); labels are the ids where supervised, else -100.
            pixels: all images of the batch in the order of their placeholders, any number per sample
                (`VisualModule.forward`); none where all samples are text.
            packing: where the samples of a packed row lie, which then don't see each other. None: a row is a sample.
            supervision: where `labels` are supervised, if that is known already.
        """
        # In training the same modules run in the same order on every rank, on a blank image where a rank has none: ranks
        # fetch weights (ZeRO-3, frozen ones too) and exchange gradients together, and would wait for each other for ever.
        blank = pixels is None and self.training
        if blank:
            pixels = torch.zeros(1, 3, self.visual.image_size, self.visual.image_size, device=ids.device)
        seen = None if pixels is None else self.visual(pixels)
        position_ids = None if packing is None else packing.positions
        embeddings = self.embed(ids, seen, labels=labels, position_ids=position_ids, blank=blank)
        return supervised_losses(self.language_model, embeddings, labels, packing, supervision, ids)

    @torch.inference_mode()
    def see(self, images: Sequence[Image.Image], *, batch_size: int = 256) -> Tensor:
        """The images' states (images, states, width), to be reused over questions about them."""
        squares = torch.from_numpy(np.stack([self.visual.preprocess(image) for image in images]))
        return torch.cat([self.visual(part.to(self.device)) for part in squares.split(batch_size)])

    def answer(
        self, images: Sequence[Image.Image], questions: Sequence[str], *,
        max_new_tokens: int = 24, batch_size: int = 64, beams: int = 1,
    ) -> list[str]:  # fmt: skip
        """The answer to each question about the image at the same place: greedy, or the best of so many beams."""
        seen = self.see(images)
        return self.answer_seen(
            seen, questions, max_new_tokens=max_new_tokens, batch_size=batch_size, beams=beams
        )

    @torch.inference_mode()
    def answer_seen(
        self, seen: Tensor, questions: Sequence[str], *,
        max_new_tokens: int = 24, batch_size: int = 64, beams: int = 1,
    ) -> list[str]:  # fmt: skip
        """As `answer`, for image states that `see` gave: one image per question."""
        prompts = [self.chat.encode([(question, None)], images=1).ids for question in questions]
        # Batches of like length: less padding, and the order is put back at the end.
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        answers = [""] * len(prompts)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            rows = [prompts[index] for index in chosen]
            replies = self.generate(rows, seen[chosen], max_new_tokens=max_new_tokens, beams=beams)
            for index, reply in zip(chosen, replies, strict=True):
                answers[index] = reply
        return answers

    def generate(
        self, prompts: Sequence[Sequence[int]], seen: Tensor | None, *, max_new_tokens: int,
        labels: Sequence[Sequence[int]] | None = None, beams: int = 1, **settings: Any,
    ) -> list[str]:  # fmt: skip
        """The answers to prompts of token ids, as words; arguments as for `generate_ids`."""
        tokens = self.generate_ids(
            prompts, seen, max_new_tokens=max_new_tokens, labels=labels, beams=beams, **settings
        )
        return [self.chat.decode(row) for row in tokens.tolist()]

    @torch.inference_mode()
    def generate_ids(
        self, prompts: Sequence[Sequence[int]], seen: Tensor | None, *, max_new_tokens: int,
        labels: Sequence[Sequence[int]] | None = None, beams: int = 1, **settings: Any,
    ) -> Tensor:  # fmt: skip
        """The answers to prompts of token ids: (rows, tokens), each with its end, if it came to one, then padding.

        Args:
            seen: states of all their images, in order; any number per prompt.
            labels: of the prompts' own earlier answers, so that experts are routed as in training.
            settings: further settings of transformers' `generate`, a streamer for example.
        """
        # Padding stands on the left, so that every row's answer starts at the same place.
        ids, mask = left_padded(prompts, self.pad_id), left_padded([[1] * len(row) for row in prompts], 0)
        known = None if labels is None else left_padded(labels, IGNORED).to(self.device)
        ids, mask = ids.to(self.device), mask.to(self.device)
        # CPM-Bee reads its mask and its positions off the ids.
        own = {"ids": ids} if isinstance(self.language_model, CpmBee) else {}
        tokens: Tensor = self.language_model.generate(
            **own, inputs_embeds=self.embed(ids, seen, labels=known), attention_mask=mask,
            max_new_tokens=max_new_tokens, do_sample=settings.pop("do_sample", False), num_beams=beams,
            eos_token_id=self.chat.end_id, pad_token_id=self.pad_id, **settings,
        )  # fmt: skip
        return tokens

    def save(self, folder: Path) -> None:
        """Write the model: language_model/ (a transformers folder), the visual module, and the chat template."""
        save_visual_module(self.visual, folder)
        own = Backbone(self.language_model, self.tokenizer, self.template, self.system)
        backbone.save(own, folder / LANGUAGE_FOLDER, image_tokens=self.image_tokens)


def prompts_of_images(
    ids: Tensor, places: Tensor, pad: int, image_tokens: int, *,
    labels: Tensor | None, position_ids: Tensor | None, guide: str,
) -> Tensor:  # fmt: skip
    """For each image, which tokens of the batch are its prompt: bool (images, rows * tokens).

    A prompt is what is not supervised and stands in the image's own sample: up to the first answer after the
    image (`first_question`), or all of it (`whole_prompt`).
    """
    rows, length = ids.shape
    row = torch.arange(rows, device=ids.device).unsqueeze(1)
    if position_ids is None:
        sample = row.expand(rows, length).flatten()
    else:
        sample = (torch.eq(position_ids, 0).cumsum(1) + row * (length + 1)).flatten()
    flat = places.flatten()
    first = flat.nonzero().squeeze(1)[::image_tokens]
    supervised = torch.zeros_like(flat) if labels is None else labels.flatten().ne(IGNORED)
    prompt = ~flat & ~supervised & ids.flatten().ne(pad)
    mask = prompt & sample.eq(sample[first].unsqueeze(1))
    if guide == "first_question":
        answered = supervised.cumsum(0)
        mask &= answered <= answered[first].unsqueeze(1)
    return mask


def left_padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of one length, filled up on the left: (rows, longest)."""
    longest = max(map(len, rows))
    return torch.tensor([[value] * (longest - len(row)) + list(row) for row in rows])


def load(folder: Path) -> VisionLanguageModel:
    """The model from the folder that `save` wrote, in evaluation mode.

    Raises:
        WeightsError: a file is missing or does not fit.
    """
    return assemble(folder / LANGUAGE_FOLDER, folder).eval()


def assemble(language_model: Path, visual: Path) -> VisionLanguageModel:
    """A model from the folders of its two halves.

    Raises:
        WeightsError: a file is missing or does not fit.
    """
    model, tokenizer, template, system = backbone.load(language_model)
    return VisionLanguageModel(load_visual_module(visual), model, tokenizer, template=template, system=system)
