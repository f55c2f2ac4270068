"""Several samples in one row, none of which sees another.

Everything but attention works on single tokens, so a packed row computes no padding there. Attention is
done sample by sample: on a GPU by the fused kernel for sequences of any length, on a CPU over samples of like
length put beside each other. transformers' own implementations (`sdpa`, `eager`, `flex_attention`,
`flash_attention_2`) part samples too, by the positions that restart: they are given no mask and no cache,
either of which would silently let one sample see another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.attention.varlen
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

IMPLEMENTATION = "packed"
"""Name under which transformers' models find this attention."""
LIKE_LENGTH = 0.65
"""Samples at least this share as long as the longest beside them: padding costs its square, a group some kernel calls."""


class PackingError(ValueError):
    """The language model attends in a way that packed rows are not computed in here."""


@dataclass(frozen=True)
class Packing:
    """Where the samples of a packed row (1, tokens) lie in it."""

    lengths: tuple[int, ...]
    """Tokens of each sample, in order; together they fill the row. On the host: no kernel waits for it."""
    positions: Tensor
    """(1, tokens): each token's place in its sample."""
    segments: Tensor
    """(1, tokens): the sample that each token belongs to."""
    bounds: Tensor
    """(samples + 1): where each sample begins in the row, int32."""
    beside: tuple[Tensor, ...]
    """Groups of samples of like length, each (samples, longest of them): the place in the row of each sample's tokens."""
    back: Tensor
    """(tokens): the place of each token among the flattened groups, one after another."""

    @property
    def longest(self) -> int:
        return max(self.lengths)

    def to(self, device: torch.device) -> Packing:
        """The same packing on a device."""
        return self._with(lambda one: one.to(device, non_blocking=True))

    def pin_memory(self) -> Packing:
        """The same packing where a GPU copies from while it works."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> Packing:
        return Packing(
            self.lengths, change(self.positions), change(self.segments), change(self.bounds),
            tuple(map(change, self.beside)), change(self.back),
        )  # fmt: skip


def pack(lengths: Sequence[int]) -> Packing:
    """The packing of samples of these lengths, one after another."""
    tokens = torch.tensor(lengths)
    bounds = torch.zeros(len(lengths) + 1, dtype=torch.int32)
    bounds[1:] = tokens.cumsum(0)
    starts = bounds[:-1].long()
    segments = torch.repeat_interleave(torch.arange(len(lengths)), tokens)
    positions = torch.arange(int(tokens.sum())) - starts[segments]
    beside, first, before = [], torch.empty_like(tokens), 0
    for group in _of_like_length(lengths):
        samples, longest = torch.tensor(group), lengths[group[0]]
        # A place beyond a sample's end reads its last token: what attention makes of it is thrown away.
        beside.append(starts[samples, None] + torch.minimum(torch.arange(longest), tokens[samples, None] - 1))
        first[samples] = before + torch.arange(len(group)) * longest
        before += len(group) * longest
    return Packing(
        tuple(lengths), positions[None], segments[None], bounds, tuple(beside), first[segments] + positions
    )


def _of_like_length(lengths: Sequence[int]) -> list[list[int]]:
    """Samples by falling length, in groups of at least `LIKE_LENGTH` of the longest of each."""
    groups: list[list[int]] = []
    for sample in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
        if groups and lengths[sample] >= LIKE_LENGTH * lengths[groups[-1][0]]:
            groups[-1].append(sample)
        else:
            groups.append([sample])
    return groups


def use_packed_attention(model: nn.Module, longest: int | None) -> None:
    """Let the transformers model in `model` attend by this module; rows without a packing are causal.

    Raises:
        PackingError: it looks back over fewer tokens than the `longest` sample may have.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            config: Any = module.config
            window: int | None = getattr(config, "sliding_window", None)
            kinds = getattr(config, "layer_types", None)
            slides = kinds is None or "sliding_attention" in kinds
            if slides and window is not None and longest is not None and longest > window:
                raise PackingError(f"its layers look back over sliding_window = {window} tokens")
            module.set_attn_implementation(IMPLEMENTATION)
            return


def packed_arguments(packing: Packing | None) -> dict[str, Any]:
    """What a transformers model's forward is given so that each sample is alone, whichever attention it uses."""
    if packing is None:
        return {}
    return {
        "position_ids": packing.positions,
        "cu_seq_lens_q": packing.bounds,
        "cu_seq_lens_k": packing.bounds,
        "max_length_q": packing.longest,
        "max_length_k": packing.longest,
        "packing": packing,
    }


def packed_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *,
    scaling: float, packing: Packing | None = None, **settings: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Causal attention within each sample of a packed row, or within each row where nothing is packed.

    query (rows, heads, tokens, d), key and value with as many heads or fewer -> (rows, tokens, heads, d).

    Raises:
        PackingError: the model asks for an attention of another kind.
    """
    _refuse(module, settings, key.shape[2] if packing is None else packing.longest)
    if packing is None:
        shared = query.shape[1] != key.shape[1]
        attended = nn.functional.scaled_dot_product_attention(
            query, key, value, mask, is_causal=mask is None and query.shape[2] > 1, scale=scaling, enable_gqa=shared
        )  # fmt: skip
        return attended.transpose(1, 2), None
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        return _by_kernel(query, key, value, packing, scaling), None
    return _beside_each_other(query, key, value, packing, scaling), None


OTHER_KINDS = ("s_aux", "softcap", "dropout")
"""What models give transformers' attention beside the scaling: attention sinks, capped scores, dropout of weights."""


def _refuse(module: nn.Module, settings: Mapping[str, Any], longest: int) -> None:
    for name in OTHER_KINDS:
        asked = settings.get(name)
        if asked is not None and (isinstance(asked, Tensor) or asked):
            raise PackingError(f"{type(module).__name__} asks for {name}")
    window = settings.get("sliding_window")
    if window is not None and longest > window:
        raise PackingError(f"{type(module).__name__} looks back over sliding_window = {window} tokens")


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float) -> Tensor:
    rows = [part[0].transpose(0, 1).contiguous() for part in (query, key, value)]
    attended: Any = torch.nn.attention.varlen.varlen_attn(
        rows[0], rows[1], rows[2], packing.bounds, packing.bounds, packing.longest, packing.longest,
        scale=scaling, window_size=(-1, 0), enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return attended[None]


def _beside_each_other(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float) -> Tensor:
    heads, width = query.shape[1], query.shape[3]
    device = query.device.type
    if torch.is_autocast_enabled(device):
        # As autocast has its products multiply: rotary positions have made queries and keys float32.
        query, key, value = (part.to(torch.get_autocast_dtype(device)) for part in (query, key, value))
    if key.shape[1] != heads:
        key, value = (part.repeat_interleave(heads // part.shape[1], dim=1) for part in (key, value))
    # (1, heads, tokens, d) -> (tokens, heads * d)
    flat = [part[0].transpose(0, 1).reshape(-1, heads * width) for part in (query, key, value)]
    groups = [_group_alone(flat, places, heads, scaling) for places in packing.beside]
    return torch.cat(groups).index_select(0, packing.back).view(1, -1, heads, width)


SCORES_AT_ONCE = 2**18


def _group_alone(flat: Sequence[Tensor], places: Tensor, heads: int, scaling: float) -> Tensor:
    """Causal attention within each sample of a group: (samples * longest, heads * d)."""
    samples, longest = places.shape
    query, key, value = (
        part.index_select(0, places.flatten()).view(samples, longest, heads, -1).transpose(1, 2) for part in flat
    )  # fmt: skip
    if query.dtype == torch.float32:
        attended = nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling
        )
    else:
        attended = _in_pieces(query, key, value, scaling)
    return attended.transpose(1, 2).reshape(samples * longest, -1)


def _in_pieces(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Causal attention of (samples, heads, tokens, d), for so many samples at once that their scores stay in the cache.

    In bf16 torch's fused kernel takes two to five times as long on a CPU, forwards and backwards.
    """
    _, heads, tokens, width = query.shape
    at_once = max(1, SCORES_AT_ONCE // (heads * tokens**2))
    later = torch.full((tokens, tokens), float("-inf"), dtype=query.dtype, device=query.device).triu(1)
    pieces = []
    for parts in zip(query.split(at_once), key.split(at_once), value.split(at_once), strict=True):
        q, k, v = (part.reshape(-1, tokens, width) for part in parts)
        weights = torch.baddbmm(later, q, k.transpose(1, 2), alpha=scaling).softmax(-1)
        pieces.append((weights @ v).view(-1, heads, tokens, width))
    return torch.cat(pieces)


AttentionInterface.register(IMPLEMENTATION, packed_attention)
