"""Any vision-language model that transformers loads, asked as our own models are, on the same questions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipelines.answer.answerer import Said, device
from pipelines.benchmarks.pictures import opened
from pipelines.benchmarks.question import Asked
from pipelines.errors import BadInput
from pipelines.progress import Progress

KEPT_BYTES = 8 << 30
"""Image states kept in memory; images beyond are seen again."""


class TransformersModel:
    """A folder with a model for image and text, its processor and chat template; safetensors only, no remote code."""

    def __init__(self, folder: Path, *, batch_size: int) -> None:
        """Raises:
        BadInput: the folder cannot be loaded, lacks weights of the model, or its processor has no chat template that works.
        """
        from jinja2 import TemplateError
        from safetensors import SafetensorError
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            self.processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
            dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=dtype, output_loading_info=True
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            raise BadInput(
                f"the model cannot be loaded: {error}",
                where=folder,
                remedy="give the folder of a vision-language model as transformers saves it: configuration, safetensors, processor",
            ) from None
        model, told = loaded
        if missing := sorted(told["missing_keys"]):
            # Transformers only warns, and goes on with random ones.
            raise BadInput(
                f"{len(missing)} of the model's weights are in no file, the first {missing[0]!r}: they would be random",
                where=folder,
                remedy="copy all of the model's safetensors into the folder, and their index",
            )
        if not getattr(self.processor, "chat_template", None):
            raise BadInput(
                "the model's processor has no chat template",
                where=folder,
                remedy="put the model's chat_template.jinja into the folder",
            )
        try:
            self._prompt("")
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            raise BadInput(
                f"the model's chat template cannot be used with an image and a question: {error}",
                where=folder,
                remedy="put the chat_template.jinja that was published with the model into the folder",
            ) from None
        self.model: Any = model.to(device()).eval()
        tokenizer = self.processor.tokenizer
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.batch_size = batch_size
        self.images: Mapping[str, Asked] = {}
        """By sha256 a question that has the image; it is decoded batch by batch, for thousands fit in no memory."""
        self.seen = SeenOnce(self.model)

    @torch.inference_mode()
    def see(self, images: Mapping[str, Asked], progress: Progress) -> None:
        self.images = images
        digests = list(images)
        progress.start("images", len(digests), unit="image")
        for start in range(0, len(digests), self.batch_size):
            batch = digests[start : start + self.batch_size]
            self.seen.look(batch, self._inputs([("", digest) for digest in batch]))
            progress.advance(len(batch))

    def answer(self, asked: Sequence[Asked], max_new_tokens: int) -> Iterator[Said]:
        order = sorted(asked, key=lambda one: len(one.prompt))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            said = self._generate(chosen, max_new_tokens)
            yield {one.key: text for one, text in zip(chosen, said, strict=True)}

    def _prompt(self, question: str) -> str:
        """An image and a question as the model's own template puts them."""
        asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        text: str = self.processor.apply_chat_template(asked, add_generation_prompt=True)
        return text

    def _inputs(self, questions: Sequence[tuple[str, str]]) -> Any:
        """The processor's inputs for (prompt, image's digest) pairs, padded on the left."""
        inputs = self.processor(
            text=[self._prompt(prompt) for prompt, _ in questions],
            images=[[opened(self.images[digest])] for _, digest in questions],
            padding=True,
            return_tensors="pt",
        ).to(self.model.device)
        for name, value in inputs.items():
            if torch.is_floating_point(value):
                inputs[name] = value.to(self.model.dtype)
        return inputs

    @torch.inference_mode()
    def _generate(self, asked: Sequence[Asked], max_new_tokens: int) -> list[str]:
        inputs = self._inputs([(one.prompt, one.image_sha256) for one in asked])
        with self.seen.batch([one.image_sha256 for one in asked]):
            tokens = self.model.generate(
                **inputs, max_new_tokens=max_new_tokens, do_sample=False,
                pad_token_id=self.processor.tokenizer.pad_token_id,
            )  # fmt: skip
        new = tokens[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]


class SeenOnce:
    """Keeps what a model's `get_image_features` gave for an image, where it gives one piece per image."""

    def __init__(self, model: Any) -> None:
        self._states: dict[str, torch.Tensor] = {}
        self._batch: list[str] = []
        self._bytes = 0
        self.computed = 0
        """Images that went through the vision encoder."""
        self._compute: Any = getattr(model.base_model, "get_image_features", None)
        if self._compute is not None:
            # With the name and arguments of the one that it stands for: `generate` looks at them.
            model.base_model.get_image_features = functools.wraps(self._compute)(
                lambda *arguments, **settings: self._features(*arguments, **settings)
            )

    def batch(self, digests: Sequence[str]) -> SeenOnce:
        """A context in which the model is run on these images, in this order."""
        self._batch = list(digests)
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._batch = []

    def look(self, digests: Sequence[str], inputs: Mapping[str, Any]) -> None:
        """Compute the states of some images from a processor's inputs, and keep them."""
        if self._compute is None:
            return
        wanted = {
            name: inputs[name] for name in inspect.signature(self._compute).parameters if name in inputs
        }
        self._keep(digests, self._compute(**wanted, return_dict=True))

    def _features(self, *arguments: Any, **settings: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        if self._batch and all(digest in self._states for digest in self._batch):
            states = [self._states[digest].to(self._device) for digest in self._batch]
            return BaseModelOutputWithPooling(pooler_output=states)  # type: ignore[arg-type]
        return self._keep(self._batch, self._compute(*arguments, **settings))

    def _keep(self, digests: Sequence[str], output: Any) -> Any:
        self.computed += len(digests)
        pieces = getattr(output, "pooler_output", None)
        if isinstance(pieces, list | tuple) and len(pieces) == len(digests):
            for digest, piece in zip(digests, pieces, strict=True):
                if digest not in self._states and self._bytes < KEPT_BYTES:
                    self._device = piece.device
                    self._states[digest] = piece.detach().cpu()
                    self._bytes += piece.nbytes
        return output
