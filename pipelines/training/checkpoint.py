"""Checkpoints that are whole or do not count, and the choice of the one to go on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

COMPLETE = "complete.json"
KEPT = 2
"""Checkpoints that stay: the newest, and one before it in case the newest is damaged."""


def save(folder: Path, step: int, write: Callable[[Path, int], None]) -> None:
    """Write the checkpoint of `step` through `write`, then publish it by rename; all ranks call it.

    The rename comes after a list of the files' sizes: a checkpoint that was cut off is not taken for whole.
    """
    partial = folder / f"step-{step:08d}.partial"
    if dist.get_rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    write(partial, step)
    dist.barrier()
    if dist.get_rank() == 0:
        sizes = {
            path.relative_to(partial).as_posix(): path.stat().st_size
            for path in sorted(partial.rglob("*"))
            if path.is_file()
        }
        (partial / COMPLETE).write_text(json.dumps({"step": step, "files": sizes}))
        final = folder / f"step-{step:08d}"
        shutil.rmtree(final, ignore_errors=True)
        partial.replace(final)
        for old in sorted(folder.glob("step-????????"))[:-KEPT]:
            shutil.rmtree(old)
    dist.barrier()


def newest(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint, if there is one; a damaged one is passed over with a message."""
    for candidate in sorted(folder.glob("step-????????"), reverse=True):
        damage = _damage(candidate)
        if damage is None:
            return candidate
        say(f"checkpoint {candidate.name} is passed over: {damage}")
    return None


def _damage(checkpoint: Path) -> str | None:
    listing = checkpoint / COMPLETE
    if not listing.is_file():
        return "it was never completed"
    for name, size in json.loads(listing.read_text())["files"].items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return None
