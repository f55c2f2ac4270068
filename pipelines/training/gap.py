"""The pivot gap: how much better a model speaks the pivot language than another, on the same few images.

The MpM claim is that what is learned in the pivot language carries over. So while it is learned, the log-likelihood per
token of the same held-out captions is taken in every language; the gap is the pivot language's minus another's.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from PIL import Image

from models.vision_language import VisionLanguageModel
from pipelines.lake import manifest
from pipelines.training.engine import Engine
from pipelines.training.modes import evaluating
from pipelines.training.planning import HELD_OUT_FILE
from pipelines.training.samples import Sample, collate


@dataclass(frozen=True)
class HeldOut:
    """Captions that are never trained on, as samples whose group is their language: the same images in each."""

    pivot: str
    samples: Sequence[Sample]


def held_out_captions(
    table: Path | None, model: VisionLanguageModel, *, pivot: str, prompts: Mapping[str, str]
) -> HeldOut | None:
    """The captions that a pack plan held out, each as the answer to its language's prompt, or else to the pivot's."""
    if table is None or pivot not in prompts:
        return None
    samples = []
    for row in pq.read_table(manifest.file(table, HELD_OUT_FILE)).to_pylist():
        pixels = model.visual.preprocess(Image.open(io.BytesIO(row["image"])))
        for language, caption in json.loads(row["captions"]).items():
            text = model.chat.encode([(prompts.get(language, prompts[pivot]), caption)], images=1)
            samples.append(Sample(text, pixels, language))
    return HeldOut(pivot, samples) if samples else None


@torch.no_grad()
def pivot_gap(engine: Engine, held_out: HeldOut, *, pad: int) -> dict[str, float]:
    """`likelihood: <language>` in nats per token, and `pivot gap: <language>`; all ranks call it together."""
    languages = sorted({sample.group for sample in held_out.samples})
    mine = list(held_out.samples)[engine.rank :: engine.ranks]
    # A rank without any computes the first, and does not count it: under ZeRO-3 all ranks fetch the weights together.
    batch = collate(mine or held_out.samples[:1], pad=pad, groups=languages, packed=True).to(engine.device)
    with evaluating(engine.model):
        losses = engine.forward(batch).double()
    counted = torch.full_like(losses, float(bool(mine)))
    sums = torch.zeros(len(languages), 2, dtype=torch.float64, device=engine.device)
    sums.index_add_(0, batch.groups, torch.stack((losses * counted, counted), dim=1))
    dist.all_reduce(sums)
    means = {name: -total / tokens for name, (total, tokens) in zip(languages, sums.tolist(), strict=True)}
    figures = {f"likelihood: {name}": value for name, value in means.items()}
    others = [name for name in languages if name != held_out.pivot]
    return figures | {f"pivot gap: {name}": means[held_out.pivot] - means[name] for name in others}
