"""Checkpoints that are whole or do not count, and that any number of ranks can go on from.

    step-00000200/rank-00000.safetensors    stretches of the trained parameters and their optimiser state
    step-00000200/rank-00000.json           the optimiser's scalars, by parameter
    step-00000200/state.json                the step, and what the checkpoint fits: frozen weights, data plan
    step-00000200/complete.json             written last: the sizes of all files

Each rank writes what it holds, as stretches of named parameters; a reader takes the stretches that it needs from
whichever files have them. So no file depends on the number of ranks or the ZeRO stage, nothing is converted by hand,
and no frozen weight is stored. Nothing is pickled: a checkpoint from a stranger can at worst be wrong.

Where the table lies in an object store, so do the checkpoints, file for file: the nodes of a group share no disk, and a
group that starts again may stand on other machines. Each rank uploads what it wrote, the sizes follow, and
`fetch` brings the newest whole one to each machine. A folder of this machine then holds one only while it is read.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipelines.errors import BadInput
from pipelines.lake import cache, location
from pipelines.training.engine import Engine

COMPLETE, STATE = "complete.json", "state.json"
PATTERN = "step-????????"


def save(
    folder: Path, step: int, engine: Engine, fits: Mapping[str, Any], *,
    kept: int, keep_every: int | None, remote: Path | None = None,
) -> None:  # fmt: skip
    """Write the checkpoint of `step` and publish it by rename, or in `remote` by its list of sizes; all ranks together.

    `fits`: what a training must agree on to go on from here. The newest `kept` stay, and those at multiples of `keep_every`.
    """
    name = f"step-{step:08d}"
    partial = folder / f"{name}.partial"
    if engine.rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        if remote is not None:
            # What a save that was killed left, perhaps on more ranks.
            location.remove(list(location.listing(remote / name)))
    dist.barrier()
    partial.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{one.name}:{kind}:{one.start}": value.to("cpu", torch.float32, copy=True).contiguous()
        for one in engine.fragments()
        for kind, value in one.values.items()
    }
    save_file(tensors, partial / f"rank-{engine.rank:05d}.safetensors")
    (partial / f"rank-{engine.rank:05d}.json").write_text(json.dumps(engine.scalars()))
    if remote is not None:
        for path in sorted(partial.glob(f"rank-{engine.rank:05d}.*")):
            location.upload(path, remote / name / path.name)
            path.unlink()
    dist.barrier()
    if engine.rank == 0:
        state = {"step": step, "ranks": engine.ranks, "fits": dict(fits)}
        if remote is not None:
            _complete_remote(remote, name, step, state, kept=kept, keep_every=keep_every)
        else:
            _complete(partial, step, state, kept=kept, keep_every=keep_every)
    dist.barrier()


def _complete(
    partial: Path, step: int, state: Mapping[str, Any], *, kept: int, keep_every: int | None
) -> None:
    (partial / STATE).write_text(json.dumps(state))
    sizes = {}
    for path in sorted(partial.iterdir()):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        sizes[path.name] = path.stat().st_size
    (partial / COMPLETE).write_text(json.dumps({"step": step, "files": sizes}))
    final = partial.with_suffix("")
    shutil.rmtree(final, ignore_errors=True)
    partial.replace(final)
    for old in _superfluous(final.parent.glob(PATTERN), kept, keep_every):
        shutil.rmtree(old)


def _complete_remote(
    remote: Path, name: str, step: int, state: Mapping[str, Any], *, kept: int, keep_every: int | None
) -> None:
    location.write_bytes(remote / name / STATE, json.dumps(state).encode())
    sizes = {path.name: size for path, (size, _) in location.listing(remote / name).items()}
    location.write_bytes(remote / name / COMPLETE, json.dumps({"step": step, "files": sizes}).encode())
    for old in _superfluous(location.folders(remote), kept, keep_every):
        location.remove(list(location.listing(old)))


def _superfluous(found: Iterable[Path], kept: int, keep_every: int | None) -> list[Path]:
    return [
        old
        for old in sorted(found)[:-kept]
        if keep_every is None or int(old.name.removeprefix("step-")) % keep_every
    ]


def fetch(remote: Path, folder: Path, say: Callable[[str], None]) -> Path | None:
    """Bring the newest whole checkpoint of an object store, if there is one, to the disk of each machine.

    All ranks call it together, and delete it together when it is read (`forget`).
    """
    chosen: list[str | None] = [None]
    if dist.get_rank() == 0:
        chosen[0] = _newest_remote(remote, say)
    dist.broadcast_object_list(chosen)
    if chosen[0] is None:
        return None
    # Of its own for each machine: some share a disk.
    target = folder / f"fetched-{os.environ.get('GROUP_RANK', '0')}" / chosen[0]
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        shutil.rmtree(target.parent, ignore_errors=True)
        _download(remote / chosen[0], target)
    dist.barrier()
    return target


def forget(fetched: Path) -> None:
    """Free the disk of a checkpoint that was fetched; all ranks have read it."""
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        shutil.rmtree(fetched)


def _newest_remote(remote: Path, say: Callable[[str], None]) -> str | None:
    for candidate in reversed(location.folders(remote)):
        there = {path.name: size for path, (size, _) in location.listing(candidate).items()}
        if COMPLETE not in there:
            say(f"checkpoint {candidate.name} is passed over: it was never completed")
            continue
        files = json.loads(location.read_bytes(candidate / COMPLETE))["files"]
        if all(there.get(name) == size for name, size in files.items()):
            return candidate.name
        say(f"checkpoint {candidate.name} is passed over: files are missing or cut short")
    return None


def _download(source: Path, target: Path) -> None:
    target.mkdir(parents=True)

    def one(path: Path) -> None:
        with (target / path.name).open("wb") as stream:
            location.download(path, stream)

    cache.in_parallel(one, list(location.listing(source)))


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
