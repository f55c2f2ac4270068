"""Checkpoints that are whole or do not count, and that any number of ranks can go on from.

    step-00000200/rank-00000.safetensors    stretches of the trained parameters and their optimiser state
    step-00000200/rank-00000.json           the optimiser's scalars, by parameter
    step-00000200/state.json                the step, and what the checkpoint fits: frozen weights, data plan
    step-00000200/complete.json             written last: the sizes of all files

Each rank writes what it holds, as stretches of named parameters; a reader takes the stretches that it needs from
whichever files have them. So no file depends on the number of ranks or the ZeRO stage, nothing is converted by hand,
and no frozen weight is stored. Nothing is pickled: a checkpoint from a stranger can at worst be wrong.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.training.engine import Engine

COMPLETE, STATE = "complete.json", "state.json"
PATTERN = "step-????????"


def save(
    folder: Path, step: int, engine: Engine, fits: Mapping[str, Any], *, kept: int, keep_every: int | None
) -> None:
    """Write the checkpoint of `step` and publish it by rename; all ranks call it together.

    `fits`: what a training must agree on to go on from here. The newest `kept` stay, and those at multiples of `keep_every`.
    """
    partial = folder / f"step-{step:08d}.partial"
    if engine.rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    tensors = {
        f"{one.name}:{kind}:{one.start}": value.to("cpu", torch.float32, copy=True).contiguous()
        for one in engine.fragments()
        for kind, value in one.values.items()
    }
    save_file(tensors, partial / f"rank-{engine.rank:05d}.safetensors")
    (partial / f"rank-{engine.rank:05d}.json").write_text(json.dumps(engine.scalars()))
    dist.barrier()
    if engine.rank == 0:
        (partial / STATE).write_text(json.dumps({"step": step, "ranks": engine.ranks, "fits": dict(fits)}))
        sizes = {}
        for path in sorted(partial.iterdir()):
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            sizes[path.name] = path.stat().st_size
        (partial / COMPLETE).write_text(json.dumps({"step": step, "files": sizes}))
        final = folder / f"step-{step:08d}"
        shutil.rmtree(final, ignore_errors=True)
        partial.replace(final)
        _prune(folder, kept, keep_every)
    dist.barrier()


def _prune(folder: Path, kept: int, keep_every: int | None) -> None:
    for old in sorted(folder.glob(PATTERN))[:-kept]:
        if keep_every is None or int(old.name.removeprefix("step-")) % keep_every:
            shutil.rmtree(old)


def newest(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint, if there is one; a damaged one is passed over with a message."""
    for candidate in sorted(folder.glob(PATTERN), reverse=True):
        damage = _damage(candidate)
        if damage is None:
            return candidate
        say(f"checkpoint {candidate.name} is passed over: {damage}")
    return None


def load(checkpoint: Path, engine: Engine, fits: Mapping[str, Any]) -> int:
    """Put the engine into the state of the checkpoint, and return the steps done; all ranks call it together.

    Raises:
        BadInput: it belongs to a training on other frozen weights, or with another data plan.
    """
    state = json.loads((checkpoint / STATE).read_text())
    for what, value in fits.items():
        if state["fits"].get(what) != value:
            raise BadInput(
                f"this checkpoint was made with another {what}: {state['fits'].get(what)}, and now it is {value}",
                where=checkpoint,
                remedy="give the training what it had, or delete this folder of checkpoints to start anew",
            )
    with StoredFragments(checkpoint) as stored:
        engine.restore(stored)
    dist.barrier()
    return int(state["step"])


class StoredFragments:
    """The stretches of all parameters in a checkpoint, read where they are asked for."""

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint
        self._open = ExitStack()
        self._stretches: defaultdict[tuple[str, str], list[tuple[int, Any]]] = defaultdict(list)
        self._scalars: dict[str, dict[str, float]] = {}

    def __enter__(self) -> Self:
        for path in sorted(self._checkpoint.glob("rank-*.safetensors")):
            file = self._open.enter_context(safe_open(path, framework="pt"))
            for key in file.keys():  # noqa: SIM118 - no mapping
                name, kind, start = key.rsplit(":", 2)
                self._stretches[name, kind].append((int(start), file.get_slice(key)))
            self._scalars.update(json.loads(path.with_suffix(".json").read_text()))
        return self

    def __exit__(self, *_: object) -> None:
        self._stretches.clear()
        self._open.close()

    @property
    def kinds(self) -> list[str]:
        return sorted({kind for _, kind in self._stretches})

    def scalars(self, name: str) -> Mapping[str, float]:
        return self._scalars.get(name, {})

    def read(self, name: str, kind: str, start: int, elements: int) -> Tensor:
        """(elements) float32 of a flattened parameter from `start`, put together from whichever ranks wrote them.

        Raises:
            BadInput: the checkpoint does not have them all.
        """
        out = torch.empty(elements)
        found = 0
        for first, stretch in self._stretches[name, kind]:
            length = stretch.get_shape()[0]
            low, high = max(start, first), min(start + elements, first + length)
            if low < high:
                out[low - start : high - start] = stretch[low - first : high - first]
                found += high - low
        if found != elements:
            raise BadInput(
                f"this checkpoint has {found} of {elements} elements of {name} ({kind})",
                where=self._checkpoint,
                remedy="it belongs to another model: delete this folder of checkpoints to start anew",
            )
        return out


def _damage(checkpoint: Path) -> str | None:
    listing = checkpoint / COMPLETE
    if not listing.is_file():
        return "it was never completed"
    try:
        files = json.loads(listing.read_text())["files"]
    except (json.JSONDecodeError, KeyError):
        return f"{COMPLETE} cannot be read"
    for name, size in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="pt"):
                    pass
            except SafetensorError as error:
                return f"{name} cannot be read: {error}"
    return None
