"""Training a small M2M-100 on parallel sentences: minutes of two CPU cores."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Tokenizer

from models.translator import SENTENCEPIECE_FILE, VOCABULARY_FILE
from pipelines.errors import BadInput
from pipelines.foundations.translator.spec import TranslatorShape, TranslatorTraining
from pipelines.foundations.translator.vocabulary import Vocabulary
from pipelines.progress import Progress

MOST_POSITIONS = 256
_BATCHES_SORTED_TOGETHER = 8
_PAD_TO_MULTIPLE = 8
_LOSSES_SHOWN = 100


class Example(NamedTuple):
    """The ids of a sentence and of its translation, each with its language token and end."""

    source: list[int]
    target: list[int]


def examples(
    rows: Sequence[dict[str, str]], directions: Sequence[tuple[str, str]], vocabulary: Vocabulary
) -> list[Example]:
    """Every row in every direction (source language, target language)."""
    return [
        Example(vocabulary.encode(row[source], source), vocabulary.encode(row[target], target))
        for row in rows
        for source, target in directions
    ]


def build(shape: TranslatorShape, vocabulary: Vocabulary) -> M2M100ForConditionalGeneration:
    """The untrained network, from torch's global seed."""
    config = M2M100Config(
        vocab_size=vocabulary.size,
        d_model=shape.width,
        encoder_layers=shape.layers,
        decoder_layers=shape.layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=shape.feed_forward,
        decoder_ffn_dim=shape.feed_forward,
        max_position_embeddings=MOST_POSITIONS,
        # The original's 0.02 suits its width of 1024. Much narrower, such embeddings drown in the
        # sinusoids added to them, and training stays on a plateau (BLEU 52 to 74 after 700 steps, not 100).
        init_std=1 / math.sqrt(shape.width),
        # The grammar's sentences are endless: nothing to regularise.
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
    )
    # Eager: the fused attention's backward in bfloat16 takes three times as long on a CPU.
    network: M2M100ForConditionalGeneration = M2M100ForConditionalGeneration._from_config(
        config, attn_implementation="eager"
    )
    return network


def train(
    network: M2M100ForConditionalGeneration,
    pairs: Sequence[Example],
    training: TranslatorTraining,
    vocabulary: Vocabulary,
    progress: Progress,
) -> dict[str, Any]:
    """Train in place; the result depends on the weights, the pairs and `training` alone.

    Raises:
        BadInput: the loss is no longer finite.
    """
    network.train()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )
    started = time.monotonic()
    progress.start("training", training.steps, unit="step")
    losses: list[float] = []
    for step, batch in enumerate(batches(pairs, training)):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * schedule(step, training)
        loss = _loss(network, batch, vocabulary)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise BadInput(
                f"the loss of step {step} is {losses[-1]}",
                where="foundations/translator",
                remedy="lower `training.learning_rate`",
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), training.gradient_clip)
        optimizer.step()
        progress.advance(1, loss=losses[-1])
    network.eval()
    seconds = time.monotonic() - started
    every = max(1, len(losses) // _LOSSES_SHOWN)
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "loss": round(sum(losses[-20:]) / len(losses[-20:]), 5),
        "losses": [round(loss, 4) for loss in losses[::every]],
        "training_seconds": round(seconds, 1),
        "training_sentences_per_second": round(training.steps * training.batch / seconds, 1),
    }


def save(network: M2M100ForConditionalGeneration, vocabulary: Vocabulary, folder: Path) -> None:
    """Write the folder as transformers would: config, safetensors, tokenizer files."""
    network.save_pretrained(folder)
    vocabulary.save(folder)
    tokenizer = M2M100Tokenizer(str(folder / VOCABULARY_FILE), str(folder / SENTENCEPIECE_FILE))
    tokenizer.save_pretrained(folder)


def schedule(step: int, training: TranslatorTraining) -> float:
    """Share of the learning rate at a step: linear up, then linear to zero."""
    if step < training.warmup_steps:
        return (step + 1) / training.warmup_steps
    return (training.steps - step) / max(1, training.steps - training.warmup_steps)


def batches(pairs: Sequence[Example], training: TranslatorTraining) -> Iterator[list[Example]]:
    """`training.steps` batches in an order that the seed gives; each holds sentences of similar length."""
    generator = torch.Generator().manual_seed(training.seed)
    size, given = min(training.batch, len(pairs)), 0
    together = min(size * _BATCHES_SORTED_TOGETHER, len(pairs) // size * size)
    while True:
        order: list[int] = torch.randperm(len(pairs), generator=generator).tolist()
        for start in range(0, len(order) - together + 1, together):
            chosen = sorted(
                order[start : start + together], key=lambda index: (len(pairs[index].source), index)
            )
            for part in torch.randperm(together // size, generator=generator).tolist():
                if given == training.steps:
                    return
                given += 1
                yield [pairs[index] for index in chosen[part * size : (part + 1) * size]]


def _loss(
    network: M2M100ForConditionalGeneration, batch: list[Example], vocabulary: Vocabulary
) -> torch.Tensor:
    """Mean cross entropy of the target's tokens; the decoder starts from </s>, as M2M-100 does."""
    padding = vocabulary.padding
    source = _padded([example.source for example in batch], padding)
    target = _padded([[vocabulary.end, *example.target] for example in batch], padding)
    with _autocast():
        logits = network(
            input_ids=source, attention_mask=source != padding, decoder_input_ids=target[:, :-1]
        ).logits
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), target[:, 1:].flatten(), ignore_index=padding
    )


def _padded(rows: Sequence[list[int]], padding: int) -> torch.Tensor:
    """(rows, longest): to a multiple of 8, since oneDNN plans each new shape anew, which takes longer than running it."""
    width = -(-max(map(len, rows)) // _PAD_TO_MULTIPLE) * _PAD_TO_MULTIPLE
    return torch.tensor([row + [padding] * (width - len(row)) for row in rows])


def _autocast() -> contextlib.AbstractContextManager[Any]:
    """bfloat16 where the CPU multiplies in it, otherwise float32: emulated bfloat16 is slower."""
    if torch.cpu.get_capabilities().get("amx_bf16"):
        return torch.autocast("cpu", torch.bfloat16)
    return contextlib.nullcontext()
