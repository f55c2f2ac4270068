"""The learning rate as a function of the step."""

from __future__ import annotations

import math


def cosine_share(step: int, steps: int, *, warmup: int, final: float) -> float:
    """The learning rate of a step, as a share of the peak: linear warm-up, then cosine decay to `final`."""
    if step < warmup:
        return (step + 1) / warmup
    decayed = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
    return final + (1 - final) * decayed
