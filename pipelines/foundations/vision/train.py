"""Training the vision encoder on images and captions of the pivot language, before it meets the language model.

A linear layer tells from the queries' states which words stand in the caption ("Classification done right
for vision-language pre-training", Huang et al. 2024); it is thrown away. This stands in for the pretraining
that a published encoder such as BEiT-3 comes with: no caption of a target language is read.
"""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn

from models.vision import VisionConfig
from models.vision_language import VisualModule, make_visual_module, normalise, preprocess, save_visual_module
from models.weights import read_json
from pipelines.errors import BadInput
from pipelines.foundations.vision.spec import VisionSpec, VisionTraining
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work
from pipelines.training.muon import MuonAdamW, parameter_groups
from pipelines.training.precision import resolve_precision
from pipelines.training.schedule import cosine_share

_WORD = re.compile(r"\w+")


def run(spec: VisionSpec, work: Work, progress: Progress) -> Outcome:
    """Make the module with seeded random weights, train its encoder, publish its folder."""
    torch.set_num_threads(spec.threads)
    width = read_json(manifest.file(spec.language_model, "config.json"))["hidden_size"]
    module = make_visual_module(VisionConfig(**spec.shape.model_dump()), width, seed=spec.seed)
    metrics: dict[str, float] = {"parameters": sum(parameter.numel() for parameter in module.parameters())}
    if spec.world is not None and spec.training.steps:
        pixels, words = read_pairs(
            manifest.file(spec.world, "reference/pairs.parquet"), spec.language, spec.shape.image_size
        )
        metrics |= train_encoder(module, pixels, words, spec.training, progress)
    save_visual_module(module, work.out)
    return Outcome(metrics=metrics)


def read_pairs(path: Path, language: str, size: int) -> tuple[Tensor, Tensor]:
    """uint8 (N, 3, size, size) of the language's images, and 0 or 1 (N, words) for each word of their captions.

    Raises:
        BadInput: there is no pair in that language.
    """
    rows = pq.read_table(path, columns=["image", "language", "caption"]).to_pylist()
    rows = [row for row in rows if row["language"] == language]
    if not rows:
        raise BadInput(
            f"no pair is in the language {language!r}", where=path, remedy="add it to world.languages"
        )
    pixels = np.stack([preprocess(Image.open(io.BytesIO(row["image"])), size) for row in rows])
    said = [set(_WORD.findall(row["caption"].lower())) for row in rows]
    place = {word: index for index, word in enumerate(sorted(set().union(*said)))}
    words = torch.zeros(len(rows), len(place))
    for row, present in enumerate(said):
        words[row, [place[word] for word in present]] = 1
    return torch.from_numpy(pixels), words


def train_encoder(
    module: VisualModule, pixels: Tensor, words: Tensor, training: VisionTraining, progress: Progress
) -> dict[str, float]:
    """Train the encoder to tell the words of an image's caption; the same for the same arguments.

    Raises:
        BadInput: the loss stopped being finite.
    """
    encoder = module.config.encoder
    head = nn.Linear(encoder.tokens * encoder.width, words.shape[1])
    learner = nn.ModuleList([module.encoder, head])
    optimizer = MuonAdamW(
        parameter_groups(learner, training.learning_rate), betas=(0.9, 0.95), weight_decay=0.01
    )
    draw = torch.Generator().manual_seed(training.seed)
    bf16 = resolve_precision("auto") == "bf16"
    losses = []
    progress.start("vision encoder", training.steps, unit="step")
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * cosine_share(step, training.steps, warmup=20, final=0.02)
        chosen = torch.randint(len(pixels), (training.batch,), generator=draw)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = head(module.encoder(normalise(pixels[chosen])).flatten(1))
        loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), words[chosen])
        if not math.isfinite(loss.item()):
            raise BadInput(
                f"the loss is {loss.item()} at step {step}", where="vision.training",
                remedy="lower its learning_rate",
            )  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        progress.advance(1, loss=losses[-1])
    last = losses[-20:]
    return {"images": len(pixels), "words": words.shape[1], "final_loss": round(sum(last) / len(last), 5)}
