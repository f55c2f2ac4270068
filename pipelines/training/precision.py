"""Which number format a training computes in on this machine."""

from __future__ import annotations

from pathlib import Path

import torch


def resolve_precision(asked: str) -> str:
    """`auto` is bf16 where the hardware multiplies it: any recent GPU, a CPU with AMX or AVX512-BF16."""
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "bf16"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "fp32"
    return "bf16" if "amx_bf16" in flags or "avx512_bf16" in flags else "fp32"
