"""The language model: any causal model of transformers, and the small bilingual one made here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.qwen2 import Qwen2Config, Qwen2ForCausalLM

from models import tokenizer_folder
from models.chat import IGNORED
from models.chat_template import TemplateChat
from models.cpm_bee import CpmBee
from models.packing import Packing, packed_arguments

SUPERVISED_MULTIPLE = 128


@dataclass(frozen=True)
class SmallConfig:
    """Shape of the small model; the architecture is Qwen2's."""

    width: int = 128
    layers: int = 4
    heads: int = 4
    mlp_width: int = 344
    positions: int = 512


def make_language_model(config: SmallConfig, *, vocabulary: int, seed: int) -> Qwen2ForCausalLM:
    """The small model with random weights."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"attn_implementation": attention_implementation()}
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.positions,
            tie_word_embeddings=True,
            # The usual 0.02 is for wide models: with it, a small one takes twice the steps.
            initializer_range=config.width**-0.5,
            **shape,
        )
    )


def attention_implementation() -> str:
    """The attention that is fastest here: on a CPU, the plain one beats the fused kernel at short lengths."""
    return "sdpa" if torch.cuda.is_available() else "eager"


def save_language_model(
    model: PreTrainedModel, chat: TemplateChat, folder: Path, *, state: dict[str, Tensor] | None = None
) -> None:
    """Write the model, its tokenizer and its chat template as a transformers folder; `state` replaces the model's own weights."""
    model.save_pretrained(folder, state_dict=state)
    tokenizer_folder.save(chat, folder)


@dataclass(frozen=True)
class Supervision:
    """The supervised tokens of a batch: found once, on the host, so that no kernel waits for their number."""

    places: Tensor
    """(supervised): the positions in the flattened batch whose next token is supervised."""
    targets: Tensor
    """(supervised): the ids of those next tokens."""

    def to(self, device: torch.device) -> Supervision:
        """The same on a device."""
        return Supervision(
            self.places.to(device, non_blocking=True), self.targets.to(device, non_blocking=True)
        )

    def pin_memory(self) -> Supervision:
        """The same where a GPU copies from while it works."""
        return Supervision(self.places.pin_memory(), self.targets.pin_memory())


def supervision_of(labels: Tensor) -> Supervision:
    """The supervised tokens of `labels` (rows, tokens): those that are not -100, the first of a row never."""
    wanted = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED).flatten()
    places = (wanted != IGNORED).nonzero().squeeze(1)
    return Supervision(places, wanted[places])


def last_states(model: nn.Module, embeddings: Tensor, packing: Packing | None, ids: Tensor | None) -> Tensor:
    """The decoder's last states: (rows, tokens, width)."""
    if isinstance(model, CpmBee):
        if ids is None:
            raise ValueError("CPM-Bee needs the ids beside their embeddings")
        states: Tensor = model(ids, embeddings, None if packing is None else packing.positions)
        return states
    decoder: Any = model.get_decoder()  # type: ignore[operator]
    found: Tensor = decoder(
        inputs_embeds=embeddings, use_cache=False, **packed_arguments(packing)
    ).last_hidden_state
    return found


def supervised_losses(
    model: nn.Module, embeddings: Tensor, labels: Tensor,
    packing: Packing | None = None, supervision: Supervision | None = None, ids: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Cross entropy of each supervised token (supervised), float32, in the batch's order.

    `embeddings` (rows, tokens, width), right-padded or packed; `labels` (rows, tokens) with -100 where
    nothing is supervised. The head runs on supervised positions only. No attention mask: with causal attention,
    padding on the right reaches no token before it, and a mask would let packed samples see each other.
    `ids` (rows, tokens) are for CPM-Bee, which reads its mask and its positions off them.
    """
    if supervision is None:
        supervision = supervision_of(labels)
    states = last_states(model, embeddings, packing, ids)
    count = len(supervision.places)
    # Few different shapes: a CPU's matrix kernels are compiled, and kept, for each. The rows added count nothing.
    added = -count % SUPERVISED_MULTIPLE if count else SUPERVISED_MULTIPLE
    rows = nn.functional.pad(supervision.places, (0, added))
    wanted = nn.functional.pad(supervision.targets, (0, added), value=IGNORED)
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    logits = head(states.flatten(0, 1).index_select(0, rows))
    losses = nn.functional.cross_entropy(logits.float(), wanted, ignore_index=IGNORED, reduction="none")
    return losses[:count]
