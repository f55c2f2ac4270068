"""Where demanded rows are: pairs, shards, and every table and checkpoint that was made from these.

Nothing is guessed: rows are found by the URLs of the raw pairs, shards by the uids in their index, and what
was made from them by the data versions that manifests froze when they were made.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import BadInput
from pipelines.instructions.spec import NAME as INSTRUCTION_MIX
from pipelines.lake import location, manifest
from pipelines.lake.identity import pair_uid
from pipelines.lake.manifest import MANIFEST_NAME, Manifest
from pipelines.lake.shards import INDEX_FILE
from pipelines.lake.takedown import Demands
from pipelines.takedown.spec import Sighting

WEIGHTS = (".safetensors", ".pt", ".bin")


@dataclass(frozen=True)
class Made:
    """A table that was made from rows that are demanded."""

    table: str
    stage: str
    data_version: str
    because: str
    """The input, and the version of it, that contains them."""
    checkpoints: list[str] = field(default_factory=list)
    """Files of weights in it."""


@dataclass(frozen=True)
class Found:
    """Everything that holds what is demanded, or was made from it."""

    rows: dict[str, list[tuple[str, str]]]
    """Table of raw pairs -> (uid, URL) of each row."""
    sightings: list[Sighting]
    """Shards that contain such rows, of raw pairs and of training."""
    made: list[Made]
    running: list[str]
    """Launched work that reads such shards and has not been published."""


def find(workspace: Path, demands: Demands, seen_before: list[Sighting]) -> Found:
    """Search all tables below `workspace`.

    `seen_before`: of earlier searches, for a checkpoint outlives the shards that it was made from.

    Raises:
        BadInput: there is no table in the workspace.
    """
    tables = dict(_tables(workspace))
    if not tables:
        raise BadInput(
            "no table stands in this workspace", where=workspace, remedy="name the `workspace` of the recipe"
        )
    rows: dict[str, list[tuple[str, str]]] = {}
    sightings: list[Sighting] = []
    for table, made in tables.items():
        if made.stage == "raw_pairs":
            found, shards = _rows(table, demands)
            if found:
                rows[_name(table, workspace)] = found
                sightings += _sightings(table, workspace, made, shards, demands)
    uids = pa.array(sorted({uid for found in rows.values() for uid, _ in found}), pa.string())
    for table, made in tables.items():
        if any(file.path.endswith(f"/{INDEX_FILE}") for file in made.files) and len(uids):
            named_here = _samples_of(table, uids) if made.stage == INSTRUCTION_MIX else uids
            sightings += _sightings(table, workspace, made, _shards(table, named_here), demands)
    named = demands.urls | demands.domains
    seen = [one for one in seen_before if named & set(one.demands)]
    known = sorted({*sightings, *seen}, key=lambda one: (one.table, one.data_version, one.shard))
    # What was made from raw pairs holds them only if the filter kept them: shards tell.
    tainted = {one.data_version: one.table for one in known if not _is_raw(one, tables, workspace)}
    made_from = _made_from(tables, workspace, tainted)
    return Found(rows, known, made_from, list(_running(tables, workspace, {one.table for one in known})))


def _is_raw(sighting: Sighting, tables: dict[Path, Manifest], workspace: Path) -> bool:
    made = tables.get(workspace / sighting.table)
    return sighting.table.endswith("raw_pairs") if made is None else made.stage == "raw_pairs"


def _tables(workspace: Path) -> Iterator[tuple[Path, Manifest]]:
    if location.is_remote(workspace):
        paths = [path for path in location.listing(workspace) if path.name == MANIFEST_NAME]
    else:
        paths = list(workspace.rglob(MANIFEST_NAME))
    for path in sorted(paths):
        yield path.parent, manifest.read(path.parent)


def _name(table: Path, workspace: Path) -> str:
    return table.relative_to(workspace).as_posix()


def _rows(table: Path, demands: Demands) -> tuple[list[tuple[str, str]], Counter[str]]:
    """The demanded rows of a table of raw pairs, and how many stand in each shard."""
    found: list[tuple[str, str]] = []
    shards: Counter[str] = Counter()
    for path in manifest.files(table, ".parquet"):
        if path.name.startswith("dropped-"):
            continue
        rows = pq.read_table(path, columns=["uid", "url", "shard"])
        rows = rows.filter(demands.match(rows["url"]))
        found += zip(rows["uid"].to_pylist(), rows["url"].to_pylist(), strict=True)
        shards.update(shard for shard in rows["shard"].to_pylist() if shard is not None)
    return found, shards


def _samples_of(table: Path, uids: pa.Array) -> pa.Array:
    """What an instruction mix calls conversations with these uids: there is a sample per language."""
    with pq.ParquetFile(manifest.file(table, INDEX_FILE)) as index:
        found = {
            language
            for batch in index.iter_batches(columns=["languages"])
            for language in pc.unique(pc.list_flatten(batch["languages"])).to_pylist()
        }
    return pa.array([pair_uid(uid, language) for uid in uids.to_pylist() for language in sorted(found)])


def _shards(table: Path, uids: pa.Array) -> Counter[str]:
    with pq.ParquetFile(manifest.file(table, INDEX_FILE)) as index:
        shards: Counter[str] = Counter()
        if not {"uid", "shard"} <= set(index.schema_arrow.names):
            return shards
        for batch in index.iter_batches(columns=["uid", "shard"]):
            shards.update(batch.filter(pc.is_in(batch["uid"], uids))["shard"].to_pylist())
    return shards


def _sightings(
    table: Path, workspace: Path, made: Manifest, shards: Counter[str], demands: Demands
) -> list[Sighting]:
    named = tuple(sorted(demands.urls | demands.domains))
    where = _name(table, workspace)
    return [
        Sighting(table=where, data_version=made.data_version, shard=shard, rows=count, demands=named)
        for shard, count in sorted(shards.items())
    ]


def _made_from(tables: dict[Path, Manifest], workspace: Path, tainted: dict[str, str]) -> list[Made]:
    """Every table with a tainted version among its frozen inputs, and what was made from those in turn."""
    versions, found, more = dict(tainted), dict[str, Made](), True
    while more:
        more = False
        for table, made in tables.items():
            name = _name(table, workspace)
            cause = next(
                ((key, version) for key, version in made.inputs.items() if version in versions), None
            )
            if cause is None or name in found:
                continue
            weights = [file.path for file in made.files if file.path.endswith(WEIGHTS)]
            because = f"{cause[0]} = {versions[cause[1]]} at {cause[1]}"
            found[name] = Made(name, made.stage, made.data_version, because, weights)
            versions.setdefault(made.data_version, name)
            more = True
    return [found[name] for name in sorted(found)]


def _running(tables: dict[Path, Manifest], workspace: Path, affected: set[str]) -> Iterator[str]:
    """Work folders with checkpoints whose spec names an affected table."""
    if location.is_remote(workspace):
        return
    names = {str(workspace / name) for name in affected}
    for path in sorted(workspace.rglob("_launch/spec.json")):
        table = path.parent.parent
        if (table / "_work").is_dir() and names & set(_strings(json.loads(path.read_text(encoding="utf-8")))):
            yield _name(table, workspace)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
