"""Training the small Chinese-CLIP on a CPU: first the image encoder on words, then both encoders together."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.clip import ChineseCLIP
from pipelines.errors import BadInput
from pipelines.foundations.clip import data
from pipelines.foundations.clip.losses import WordHead, matching_loss
from pipelines.foundations.clip.spec import ClipTraining
from pipelines.progress import Progress

MOST_LOGIT_SCALE = math.log(100)
"""cn_clip's bound on the learned temperature."""
_BETAS = (0.9, 0.98)
_LOSSES_SHOWN = 100
_LAST = 20
"""Steps whose mean loss is the final one."""


def train(
    clip: ChineseCLIP, pairs: data.ReferencePairs, training: ClipTraining, progress: Progress
) -> dict[str, Any]:
    """Train in place; on one machine the result depends on the weights, the pairs and `training` alone.

    Raises:
        BadInput: the loss is no longer finite.
    """
    network: Any = clip.network
    texts = torch.cat([pairs.captions, pairs.negatives.flatten(0, 1)])
    words = WordHead(clip.config.projection_dim, texts, len(pairs.pieces))
    with _made_fast(network, pairs.pieces):
        metrics = _optimise(clip, words, pairs, training, progress)
    return metrics


@contextlib.contextmanager
def _made_fast(network: Any, pieces: Tensor) -> Iterator[None]:
    """Meanwhile the network trains, takes places in `pieces` for token ids, and attends by plain products.

    The pieces are a hundredth of the vocabulary, and the other rows would not change: without them neither
    gradients nor the optimiser touch millions of zeros. The backward pass of fused attention takes
    several times as long on a CPU as plain products.
    """
    attention = network.config._attn_implementation
    embeddings = network.text_model.embeddings
    whole = embeddings.word_embeddings
    embeddings.word_embeddings = nn.Embedding.from_pretrained(
        whole.weight.detach()[pieces].clone(), freeze=False, padding_idx=0
    )
    network.set_attn_implementation("eager")
    network.train()
    yield
    with torch.no_grad():
        whole.weight[pieces] = embeddings.word_embeddings.weight
    embeddings.word_embeddings = whole
    network.set_attn_implementation(attention)
    network.eval()


def _optimise(
    clip: ChineseCLIP,
    words: WordHead,
    pairs: data.ReferencePairs,
    training: ClipTraining,
    progress: Progress,
) -> dict[str, Any]:
    network = clip.network
    parameters = [*network.parameters(), *words.parameters()]
    optimizer = torch.optim.AdamW(_groups(network, words, training), betas=_BETAS, fused=True)
    total = training.image_steps + training.steps
    losses: list[float] = []
    started = time.monotonic()
    progress.start("training", total, unit="step")
    for step, batch in enumerate(data.batches(pairs, training, total)):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * schedule(step, total, training.warmup_steps)
        with _autocast():
            if step < training.image_steps:
                loss = _image_loss(clip, words, batch)
            else:
                loss = _loss(clip, words, batch, training)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise BadInput(
                f"the loss of step {step} is {losses[-1]}",
                where="training of the Chinese-CLIP",
                remedy="lower `training.learning_rate`",
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, training.gradient_clip)
        optimizer.step()
        with torch.no_grad():
            network.logit_scale.clamp_(0, MOST_LOGIT_SCALE)
        progress.advance(1, loss=losses[-1])
    seconds = time.monotonic() - started
    # The two phases have different losses: one curve of both would show a jump that is none.
    image_losses, losses = losses[: training.image_steps], losses[training.image_steps :]
    last = losses[-_LAST:]
    return {
        "loss": round(sum(last) / len(last), 4),
        "losses": _thinned(losses),
        "image_losses": _thinned(image_losses),
        "training_seconds": round(seconds, 1),
        "pairs_per_second": round(total * training.batch / seconds, 1),
    }


def _thinned(losses: list[float]) -> list[float]:
    return [round(loss, 4) for loss in losses[:: max(1, len(losses) // _LOSSES_SHOWN)]]


def schedule(step: int, total: int, warmup: int) -> float:
    """Share of the learning rate at a step: linear warm-up, then a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _groups(network: nn.Module, words: WordHead, training: ClipTraining) -> list[dict[str, Any]]:
    """Weight decay on matrices only: not on norms, biases, the temperature, nor on rows of unseen words."""
    decayed: list[nn.Parameter] = []
    free = list(words.parameters())
    for name, parameter in network.named_parameters():
        (free if parameter.ndim < 2 or "embedding" in name else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": training.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def _image_loss(clip: ChineseCLIP, words: WordHead, batch: data.Batch) -> Tensor:
    size = len(batch.captions)
    loss: Tensor = words(clip.image_states(batch.images[:size]), batch.captions)
    return loss


def _loss(clip: ChineseCLIP, words: WordHead, batch: data.Batch, training: ClipTraining) -> Tensor:
    size = len(batch.captions)
    tokens = torch.cat([batch.captions, batch.negatives])
    images, texts = clip.image_states(batch.images), clip.text_states(tokens)
    told = words(images[:size], batch.captions) + words(texts, tokens)
    images, texts = (functional.normalize(states.float(), dim=-1) for states in (images, texts))
    scale = clip.network.logit_scale.exp()
    return matching_loss(images, texts[:size], texts[size:], scale, training) + training.word_weight * told


def _autocast() -> contextlib.AbstractContextManager[Any]:
    """bfloat16 where the CPU multiplies in it, otherwise float32: emulated bfloat16 is slower."""
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"):
        return torch.autocast("cpu", torch.bfloat16)
    return contextlib.nullcontext()
