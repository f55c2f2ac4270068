"""The stage: load given weights or train small ones, and write the model folder, whose format is the same."""

from __future__ import annotations

from typing import Any

import torch

from models import clip as chinese_clip
from models import pair_encoder
from models.clip import ChineseCLIP
from models.pair_encoder import PairEncoder
from models.weights import WeightsError
from pipelines.errors import BadInput
from pipelines.foundations.clip import data, training
from pipelines.foundations.clip.spec import ClipShape, ClipSpec
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work

REFERENCE_PAIRS = "reference/pairs.parquet"


def run(spec: ClipSpec, work: Work, progress: Progress) -> Outcome:
    """Write the model folder into `work.out`."""
    torch.set_num_threads(spec.threads)
    clip: PairEncoder
    try:
        clip, metrics = _given(spec) if spec.parameters.weights else _trained(spec, progress)
    except WeightsError as error:
        raise BadInput(error.message, where=error.where, remedy=error.remedy) from error
    clip.save(work.out)
    parameters = sum(parameter.numel() for parameter in clip.network.parameters())
    return Outcome(metrics={"parameters": parameters, "image_size": clip.image_size, **metrics})


def _given(spec: ClipSpec) -> tuple[PairEncoder, dict[str, Any]]:
    source = spec.parameters.weights or ""
    return pair_encoder.load(source, sha256=spec.parameters.sha256), {"source": source}


def _trained(spec: ClipSpec, progress: Progress) -> tuple[ChineseCLIP, dict[str, Any]]:
    assert spec.world is not None  # noqa: S101  # the spec's validator
    found = manifest.files(spec.world, REFERENCE_PAIRS)
    if not found:
        raise BadInput(
            f"the world has no {REFERENCE_PAIRS}", where=spec.world, remedy="run the world stage again"
        )
    torch.manual_seed(spec.parameters.training.seed)
    network = chinese_clip.build(config_of(spec.parameters.shape))
    clip = ChineseCLIP(network, chinese_clip.bundled_vocabulary())
    pairs = data.read(found[0], clip, progress)
    metrics = training.train(clip, pairs, spec.parameters.training, progress)
    return clip, {"source": "trained here", "pairs": len(pairs), **metrics}


def config_of(shape: ClipShape) -> dict[str, Any]:
    """The `ChineseCLIPConfig` document of a small model."""
    encoder = {"num_attention_heads": shape.heads, "intermediate_size": shape.feed_forward}
    return {
        "projection_dim": shape.projection,
        "vision_config": {
            **encoder,
            "hidden_size": shape.vision_width,
            "num_hidden_layers": shape.vision_layers,
            "image_size": shape.image_size,
            "patch_size": shape.patch_size,
            "projection_dim": shape.projection,
        },
        "text_config": {
            **encoder,
            "vocab_size": chinese_clip.VOCABULARY_SIZE,
            "hidden_size": shape.text_width,
            "num_hidden_layers": shape.text_layers,
            "max_position_embeddings": chinese_clip.TEXT_LENGTH,
            # A minute of training sees hardly a pair twice often enough to need them.
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
    }
