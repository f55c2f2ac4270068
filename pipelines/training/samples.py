"""What a sample is to the trainer, and how samples become a batch of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.chat import IGNORED, Encoded
from models.language_model import Supervision, supervision_of
from models.packing import Packing, pack
from pipelines.training.plan import Measures

LENGTH_MULTIPLE = 16
"""Few different shapes: a CPU's matrix kernels are compiled, and kept, for each."""
PACK_MULTIPLE = 64


@dataclass(frozen=True)
class Sample:
    """A conversation, and the images it is about: uint8 (3, size, size) or (images, 3, size, size), or none."""

    text: Encoded
    pixels: np.ndarray | None = None
    group: str = "all"
    """`source/language`: whose losses its own belong to."""


class Samples(Protocol):
    """Random access to a training set. The same index and epoch always give the same sample."""

    def __len__(self) -> int: ...

    def text(self, index: int, epoch: int | None) -> tuple[Encoded, str]:
        """The conversation and its group, without the images; without an epoch, the longest of any epoch."""
        ...

    def images(self, index: int) -> int: ...

    def sample(self, index: int, epoch: int) -> Sample: ...


@dataclass(frozen=True)
class Batch:
    """ids and labels (rows, tokens), right-padded; pixels uint8 (images, 3, size, size), or none.

    `packing` tells how a packed row is parted into samples; without it, each row is one sample.
    """

    ids: Tensor
    labels: Tensor
    pixels: Tensor | None
    packing: Packing | None
    supervision: Supervision
    groups: Tensor
    """(supervised): the number of the group that each supervised token belongs to."""
    image_groups: Tensor
    """(images): the same of each image."""
    tokens: int
    """Tokens that are no padding."""
    images: int

    @property
    def supervised(self) -> int:
        """Supervised tokens: those that the shifted loss counts."""
        return len(self.supervision.places)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device, copied while the device works."""
        if device.type == "cpu":
            return self
        return Batch(
            self.ids.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            None if self.pixels is None else self.pixels.to(device, non_blocking=True),
            None if self.packing is None else self.packing.to(device),
            self.supervision.to(device),
            self.groups.to(device, non_blocking=True),
            self.image_groups.to(device, non_blocking=True),
            self.tokens,
            self.images,
        )

    def pin_memory(self) -> Batch:
        """The same batch where a GPU copies from while it works; a `DataLoader` calls it by this name."""
        return replace(
            self,
            ids=self.ids.pin_memory(),
            labels=self.labels.pin_memory(),
            pixels=None if self.pixels is None else self.pixels.pin_memory(),
            packing=None if self.packing is None else self.packing.pin_memory(),
            supervision=self.supervision.pin_memory(),
            groups=self.groups.pin_memory(),
            image_groups=self.image_groups.pin_memory(),
        )


def collate(
    samples: Sequence[Sample], *, pad: int, groups: Sequence[str] = ("all",), packed: bool = False,
    width: int | None = None,
) -> Batch:  # fmt: skip
    """The samples as one batch: each a row padded to the longest, or all in one row, one after another.

    A row is `width` long where that is given, else rounded up to few different lengths. No samples at all give a row of padding, for a rank that has fewer rows than another.
    """
    lengths = [len(sample.text.ids) for sample in samples]
    if packed:
        used = sum(lengths)
        total = max(width or used + -used % PACK_MULTIPLE, PACK_MULTIPLE)
        # What fills the row up is a sample of its own.
        filler = total - used
        ids = torch.tensor([[token for sample in samples for token in sample.text.ids] + [pad] * filler])
        # A sample's first token follows another sample's last: it is never supervised, as in a row of its own.
        wanted = [label for sample in samples for label in (IGNORED, *sample.text.labels[1:])]
        labels = torch.tensor([wanted + [IGNORED] * filler])
        packing = pack([*lengths, *_pieces(filler, max(lengths, default=filler))])
    else:
        longest = max(lengths, default=1)
        longest = width or longest + -longest % LENGTH_MULTIPLE
        ids = torch.full((max(len(samples), 1), longest), pad)
        labels = torch.full(ids.shape, IGNORED)
        for row, sample in enumerate(samples):
            ids[row, : lengths[row]] = torch.tensor(sample.text.ids)
            labels[row, : lengths[row]] = torch.tensor(sample.text.labels)
        packing = None
    images = [sample.pixels.reshape(-1, *sample.pixels.shape[-3:]) for sample in samples if sample.pixels is not None]  # fmt: skip
    counts = [
        0 if one.pixels is None else len(one.pixels.reshape(-1, *one.pixels.shape[-3:])) for one in samples
    ]
    supervised = [sum(label != IGNORED for label in one.text.labels[1:]) for one in samples]
    return Batch(
        ids, labels, torch.from_numpy(np.concatenate(images)) if images else None, packing,
        supervision_of(labels), _groups(samples, groups, supervised), _groups(samples, groups, counts),
        sum(lengths), sum(map(len, images)),
    )  # fmt: skip


def _pieces(length: int, most: int) -> list[int]:
    """`length` in pieces of at most `most`: padding shall not be the longest sample of its row."""
    return [min(most, length - start) for start in range(0, length, most)]


def _groups(samples: Sequence[Sample], groups: Sequence[str], counts: Sequence[int]) -> Tensor:
    """The number of each sample's group, as often as its count says."""
    numbers = {name: number for number, name in enumerate(groups)}
    return torch.repeat_interleave(
        torch.tensor([numbers[sample.group] for sample in samples], dtype=torch.long),
        torch.tensor(counts, dtype=torch.long),
    )


def measure(samples: Samples) -> Measures:
    """What packing must know of the samples; no image is read."""
    read = [samples.text(index, None) for index in range(len(samples))]
    return Measures(
        tokens=np.array([len(text.ids) for text, _ in read]),
        supervised=np.array([sum(label != IGNORED for label in text.labels[1:]) for text, _ in read]),
        images=np.array([samples.images(index) for index in range(len(samples))]),
        groups=tuple(sorted({group for _, group in read})),
    )
