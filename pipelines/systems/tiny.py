"""A system's tiny twin: the same parts, the same stages, the same code; widths and steps that a laptop trains in seconds."""

from __future__ import annotations

from typing import Any

from models.architecture import (
    Architecture,
    Beit3Encoder,
    ClipEncoder,
    Encoder,
    LanguageModel,
    Lora,
    QueryTransformer,
    Visual,
)
from pipelines.systems.recipe import System, Training

WIDTH, LAYERS, HEADS, INNER = 32, 2, 2, 64
STEPS, BATCH = 3, 4


def tiny(system: System, vocabulary: int) -> System:
    """The twin of `system` with so many tokens. What is large is made small, and nothing else is touched."""
    parts = system.architecture
    visual = parts.visual.model_copy(update={"encoder": _encoder(parts.visual.encoder), "weights": None})
    if visual.experts is not None and visual.experts.mlp_width is not None:
        visual = visual.model_copy(update={"experts": visual.experts.model_copy(update={"mlp_width": INNER})})
    language = _language_model(parts.language_model, vocabulary)
    return system.model_copy(
        update={
            "architecture": Architecture(visual=Visual(**visual.model_dump()), language_model=language),
            "pretraining": _training(system.pretraining),
            "tuning": _training(system.tuning),
        }
    )


def _encoder(encoder: Encoder) -> Encoder:
    shape: dict[str, Any] = {
        "image_size": 2 * encoder.patch_size,
        "width": WIDTH,
        "layers": LAYERS,
        "heads": HEADS,
    }
    match encoder:
        case Beit3Encoder():
            shape |= {"queries": 4, "mlp_width": INNER, "text_positions": 16}
        case ClipEncoder():
            shape |= {"mlp_width": INNER}
        case QueryTransformer():
            shape |= {"queries": 4}
    return encoder.model_copy(update=shape)


def _language_model(config: LanguageModel, vocabulary: int) -> LanguageModel:
    architecture = dict(config.architecture)
    if architecture["model_type"] == "cpm_bee":
        architecture |= {
            "dim_model": WIDTH, "dim_ff": INNER, "num_layers": LAYERS, "num_heads": HEADS,
            "dim_head": WIDTH // HEADS, "vocab_size": vocabulary,
        }  # fmt: skip
    else:
        grouped = architecture["num_key_value_heads"] < architecture["num_attention_heads"]
        architecture |= {
            "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS, "num_key_value_heads": 1 if grouped else HEADS,
            "vocab_size": vocabulary, "max_position_embeddings": 512,
        }  # fmt: skip
        if "head_dim" in architecture:
            architecture["head_dim"] = WIDTH // HEADS
    lora = config.lora and Lora(**{**config.lora.model_dump(), "rank": 4, "alpha": 8})
    return config.model_copy(update={"architecture": architecture, "weights": None, "lora": lora})


def _training(training: Training) -> Training:
    return training.model_copy(
        update={
            "steps": STEPS,
            "epochs": None,
            "batch_size": BATCH,
            "per_gpu": None,
            "warmup_share": None,
            "warmup_steps": 1,
            "packs_multiple": 1,
            "data_workers": 0,
        }
    )
