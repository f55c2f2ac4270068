"""Image states, computed once and used for every rotation and language of the questions about an image.

They lie in a file that is mapped into memory: the states of a benchmark's images at full size (thousands of images,
hundreds of tokens, thousands of numbers each) need not fit beside the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


class Features:
    """States of one shape, by the image's sha256."""

    def __init__(self, scratch: Path) -> None:
        self._path = scratch
        self._rows: dict[str, int] = {}
        self._states: Tensor | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, digests: Sequence[str], states: Tensor, *, expected: int) -> None:
        """Keep `states` (images, ...); `expected` images will be added in all."""
        if self._states is None:
            shape = (expected, *states.shape[1:])
            size = torch.Size(shape).numel()
            self._path.unlink(missing_ok=True)
            self._states = torch.from_file(str(self._path), shared=True, size=size, dtype=states.dtype).view(
                shape
            )
        first = len(self._rows)
        self._states[first : first + len(digests)] = states.detach().cpu()
        self._rows |= {digest: first + place for place, digest in enumerate(digests)}

    def of(self, digests: Sequence[str]) -> Tensor:
        """The states (questions, ...) of the images of some questions."""
        if self._states is None:
            raise KeyError("no image was added yet")
        return self._states[[self._rows[digest] for digest in digests]]
