"""Keeping the takedown list: demands and sightings are added, never lost, whoever adds at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake import lock, manifest, takedown
from pipelines.lake.ledger import Ledger
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work, execute
from pipelines.takedown.spec import NAME, STAGE, Demand, Sighting, TakedownSpec

SIGHTINGS_FILE = "sightings.parquet"
SIGHTINGS = pa.schema(
    [
        ("table", pa.string()),
        ("data_version", pa.string()),
        ("shard", pa.string()),
        ("rows", pa.int64()),
        ("demands", pa.list_(pa.string())),
    ]
)


def run(spec: TakedownSpec, work: Work, progress: Progress) -> Outcome:
    """Write takedown.parquet and sightings.parquet."""
    demands = [demand.model_dump() for demand in spec.demands]
    sightings = [sighting.model_dump() for sighting in spec.sightings]
    pq.write_table(pa.Table.from_pylist(demands, takedown.LIST), work.out / takedown.FILE)
    pq.write_table(pa.Table.from_pylist(sightings, SIGHTINGS), work.out / SIGHTINGS_FILE)
    return Outcome(
        ledger=Ledger(rows_in=len(demands), kept=len(demands)),
        metrics={"urls": sum(one.kind == "url" for one in spec.demands)}
        | {"domains": sum(one.kind == "domain" for one in spec.demands)},
        rows={takedown.FILE: len(demands), SIGHTINGS_FILE: len(sightings)},
    )


def add(
    workspace: Path, demands: Sequence[Demand], sightings: Sequence[Sighting]
) -> tuple[list[Demand], list[Sighting]]:
    """Add to the workspace's list; return the whole of it.

    Raises:
        BadInput: a domain is none.
    """
    table = workspace / NAME
    takedown.Demands.of(
        [one.value for one in demands if one.kind == "url"],
        [one.value for one in demands if one.kind == "domain"],
    )
    # A lock of its own: the stage's covers its run, and this what is read before it.
    with lock.exclusive(table / "edit"):
        known, seen = read(table)
        there = {(one.kind, one.value) for one in known}
        all_demands = [*known, *(one for one in demands if (one.kind, one.value) not in there)]
        all_sightings = sorted({*seen, *sightings}, key=lambda one: one.model_dump_json())
        execute(STAGE, TakedownSpec(output=table, demands=all_demands, sightings=all_sightings))
    return all_demands, all_sightings


def read(table: Path) -> tuple[list[Demand], list[Sighting]]:
    """The demands and sightings in a takedown table; none where there is no table."""
    if not manifest.exists(table):
        return [], []
    demands = pq.read_table(manifest.file(table, takedown.FILE), schema=takedown.LIST).to_pylist()
    sightings = pq.read_table(manifest.file(table, SIGHTINGS_FILE), schema=SIGHTINGS).to_pylist()
    return [Demand(**row) for row in demands], [Sighting(**row) for row in sightings]
