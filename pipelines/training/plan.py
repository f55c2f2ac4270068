"""The pack plan: every pack of every step of a training, as a table made before it starts.

So nothing about the data order is state. What a step trains on is the same whatever the number of ranks
and however often the run was stopped; the ranks only share it differently.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.errors import BadInput
from pipelines.training.order import Order
from pipelines.training.packs import Draw, Pack, balanced_packs, deal

PLAN_FILE = "plan.arrow"
PACKS = pa.schema(
    [
        ("step", pa.int32()),
        ("samples", pa.list_(pa.int64())),
        ("epochs", pa.list_(pa.int32())),
        ("tokens", pa.int32()),
        ("supervised", pa.int32()),
        ("images", pa.int32()),
    ]
)
"""One row per pack, by step. `samples` are places in the training's list of samples, `epochs` the pass of each."""
STEPS_PER_BATCH = 256


@dataclass(frozen=True)
class Measures:
    """What packing must know of the samples, by place: all arrays (samples)."""

    tokens: np.ndarray
    supervised: np.ndarray
    images: np.ndarray
    groups: tuple[str, ...]
    """Names of the `source/language` groups whose losses are told apart."""

    def pack(self, draws: Sequence[Draw]) -> Pack:
        places = [sample for _, sample in draws]
        sums = (int(column[places].sum()) for column in (self.tokens, self.supervised, self.images))
        return Pack(tuple(draws), *sums)


@dataclass(frozen=True)
class PackPlan:
    """The packs of all steps."""

    table: pa.Table
    groups: tuple[str, ...]
    packed: bool
    """Whether a pack is one row; else each pack is one sample, and a rank's samples are padded to one length."""
    digest: str
    """Of the order itself: equal plans train on the same samples in the same packs."""
    _first: np.ndarray
    """The first row of each step, and the number of rows."""

    @property
    def steps(self) -> int:
        return len(self._first) - 1

    def packs(self, step: int) -> list[Pack]:
        """The packs of a step, counted from 0: the global batch."""
        first = int(self._first[step])
        return [
            Pack(
                tuple(zip(row["epochs"], row["samples"], strict=True)),
                row["tokens"], row["supervised"], row["images"],
            )
            for row in self.table.slice(first, int(self._first[step + 1]) - first).to_pylist()
        ]  # fmt: skip

    def share(self, step: int, rank: int, ranks: int) -> list[Pack]:
        """The packs of a step that one rank takes. The shares of all ranks are the global batch."""
        return deal(self.packs(step), ranks)[rank]

    def supervised(self, step: int) -> int:
        """Supervised tokens of the global batch: known to every rank without an exchange."""
        return sum(pack.supervised for pack in self.packs(step))


def plan_steps(
    order: Order, measures: Measures, *, steps: int, batch_size: int, pack_tokens: int | None, multiple: int = 1
) -> Iterator[pa.RecordBatch]:  # fmt: skip
    """The rows of PACKS, some steps at a time. Without `pack_tokens` each sample is a pack of its own."""
    rows: list[dict[str, Any]] = []
    for step in range(steps):
        draws = order.batch(step, batch_size)
        if pack_tokens is None:
            parts = [[place] for place in range(len(draws))]
        else:
            lengths = measures.tokens[[sample for _, sample in draws]].tolist()
            parts = balanced_packs(lengths, pack_tokens, multiple)
        for part in parts:
            pack = measures.pack([draws[place] for place in part])
            epochs, samples = zip(*pack.draws, strict=True)
            rows.append(
                {
                    "step": step, "samples": samples, "epochs": epochs, "tokens": pack.tokens,
                    "supervised": pack.supervised, "images": pack.images,
                }
            )  # fmt: skip
        if (step + 1) % STEPS_PER_BATCH == 0 or step + 1 == steps:
            yield pa.RecordBatch.from_pylist(rows, PACKS)
            rows = []


def make_plan(order: Order, measures: Measures, *, pack_tokens: int | None, **shape: Any) -> PackPlan:
    """A plan in memory; `shape` as for `plan_steps`."""
    table = pa.Table.from_batches(plan_steps(order, measures, pack_tokens=pack_tokens, **shape), PACKS)
    return _plan(table, measures.groups, packed=pack_tokens is not None)


def write_plan(
    path: Path, order: Order, measures: Measures, *, pack_tokens: int | None, **shape: Any
) -> None:
    """Write a plan step by step: memory holds a few hundred steps, whatever the length of the training."""
    told = json.dumps({"groups": measures.groups, "packed": pack_tokens is not None}, sort_keys=True)
    schema = PACKS.with_metadata({"plan": told})
    with pa.OSFile(str(path), "wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        for batch in plan_steps(order, measures, pack_tokens=pack_tokens, **shape):
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))


def read_plan(path: Path) -> PackPlan:
    """The plan in a file, mapped into memory and read where it is asked for.

    Raises:
        BadInput: the file is no plan.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        told = json.loads(table.schema.metadata[b"plan"])
        return _plan(table.cast(PACKS), tuple(told["groups"]), packed=told["packed"])
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"this is no pack plan: {error}", where=path, remedy="run the stage that makes the plan again"
        ) from error


def _plan(table: pa.Table, groups: tuple[str, ...], *, packed: bool) -> PackPlan:
    digest = hashlib.sha256(b"packed" if packed else b"rows")
    for column in ("step", "samples", "epochs"):
        values = table[column]
        for chunk in values.chunks:
            if pa.types.is_list(chunk.type):
                digest.update(np.diff(chunk.offsets.to_numpy()).tobytes())
                chunk = chunk.flatten()
            digest.update(chunk.to_numpy().tobytes())
    steps = np.concatenate([chunk.to_numpy() for chunk in table["step"].chunks])
    first = np.searchsorted(steps, np.arange(int(steps[-1]) + 2))
    return PackPlan(table, groups, packed, digest.hexdigest()[:16], first)
