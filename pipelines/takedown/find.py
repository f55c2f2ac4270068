"""Where demanded rows are: pairs, shards, and every table and checkpoint that was made from these.

Nothing is guessed: rows are found by the URLs of the raw pairs, shards by the uids in their index, and what
was made from them by the data versions that manifests froze when they were made. Versions that were replaced
since count too (`lake/lineage.py`).
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
from pipelines.lake import lineage, location
from pipelines.lake.identity import pair_uid
from pipelines.lake.lineage import Version
from pipelines.lake.manifest import MANIFEST_NAME
from pipelines.lake.takedown import Demands
from pipelines.lake.work import UNPUBLISHED
from pipelines.takedown.spec import Sighting

RAW_PAIRS = "raw_pairs"
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
    is_current: bool = True
    """Whether this version is the published one; copies of one that was replaced may live elsewhere."""


@dataclass(frozen=True)
class Found:
    """Everything that holds what is demanded, or was made from it."""

    rows: dict[str, list[tuple[str, str]]]
    """Table of raw pairs -> (uid, URL) of each row that stands in its published version."""
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
    versions = [one for table in _tables(workspace) for one in lineage.versions(table)]
    if not versions:
        raise BadInput(
            "no table stands in this workspace", where=workspace, remedy="name the `workspace` of the recipe"
        )
    rows: dict[str, list[tuple[str, str]]] = {}
    sightings: list[Sighting] = []
    uids: set[str] = set()
    for version in versions:
        if version.made.stage == RAW_PAIRS:
            found, shards = _rows(version, demands)
            uids.update(uid for uid, _ in found)
            if found:
                sightings += _sightings(version, workspace, shards, demands)
                if version.is_current:
                    rows[_name(version.table, workspace)] = found
    wanted = pa.array(sorted(uids), pa.string())
    for version in versions:
        if version.made.stage != RAW_PAIRS and len(wanted):
            named_here = _samples_of(version, wanted) if version.made.stage == INSTRUCTION_MIX else wanted
            sightings += _sightings(version, workspace, _shards(version, named_here), demands)
    named = demands.urls | demands.domains
    seen = [one for one in seen_before if named & set(one.demands)]
    known = sorted({*sightings, *seen}, key=lambda one: (one.table, one.data_version, one.shard))
    # What was made from raw pairs holds them only if the filter kept them: shards tell.
    raw = {_name(one.table, workspace) for one in versions if one.made.stage == RAW_PAIRS}
    tainted = {one.data_version: one.table for one in known if one.table not in raw}
    if known:
        for one in versions:
            if one.is_lost and one.made.stage != RAW_PAIRS:
                tainted.setdefault(
                    one.made.data_version, f"{_name(one.table, workspace)} (damaged: it may hold them)"
                )
    running = _running(workspace, {one.table for one in known})
    return Found(rows, known, _made_from(versions, workspace, tainted), sorted(running))


def _tables(workspace: Path) -> list[Path]:
    if location.is_remote(workspace):
        paths = [path for path in location.listing(workspace) if path.name == MANIFEST_NAME]
    else:
        paths = list(workspace.rglob(MANIFEST_NAME))
    return sorted(path.parent for path in paths)


def _name(table: Path, workspace: Path) -> str:
    return table.relative_to(workspace).as_posix()


def _rows(version: Version, demands: Demands) -> tuple[list[tuple[str, str]], Counter[str]]:
    """The demanded rows of raw pairs, and how many stand in each shard."""
    found: list[tuple[str, str]] = []
    shards: Counter[str] = Counter()
    for path in version.placements:
        rows = pq.read_table(path, columns=["uid", "url", "shard"])
        rows = rows.filter(demands.match(rows["url"]))
        found += zip(rows["uid"].to_pylist(), rows["url"].to_pylist(), strict=True)
        shards.update(shard for shard in rows["shard"].to_pylist() if shard is not None)
    return found, shards


def _samples_of(version: Version, uids: pa.Array) -> pa.Array:
    """What an instruction mix calls conversations with these uids: there is a sample per language."""
    found = {
        language
        for batch in _batches(version, "languages")
        for language in pc.unique(pc.list_flatten(batch["languages"])).to_pylist()
    }
    return pa.array([pair_uid(uid, language) for uid in uids.to_pylist() for language in sorted(found)])


def _shards(version: Version, uids: pa.Array) -> Counter[str]:
    shards: Counter[str] = Counter()
    for batch in _batches(version, "uid", "shard"):
        shards.update(batch.filter(pc.is_in(batch["uid"], uids))["shard"].to_pylist())
    return shards


def _batches(version: Version, *columns: str) -> Iterator[pa.RecordBatch]:
    for path in version.placements:
        with pq.ParquetFile(path) as index:
            yield from index.iter_batches(columns=list(columns))


def _sightings(version: Version, workspace: Path, shards: Counter[str], demands: Demands) -> list[Sighting]:
    named = tuple(sorted(demands.urls | demands.domains))
    where, made = _name(version.table, workspace), version.made.data_version
    return [
        Sighting(table=where, data_version=made, shard=shard, rows=count, demands=named)
        for shard, count in sorted(shards.items())
    ]


def _made_from(versions: list[Version], workspace: Path, tainted: dict[str, str]) -> list[Made]:
    """Every table with a tainted version among its frozen inputs, and what was made from those in turn.

    Of a version that was replaced nothing is left to be deleted here, so it is named without checkpoints.
    """
    known, found, more = dict(tainted), dict[tuple[str, str], Made](), True
    while more:
        more = False
        for version in versions:
            made, name = version.made, _name(version.table, workspace)
            cause = next(((key, one) for key, one in made.inputs.items() if one in known), None)
            if cause is None or (name, made.data_version) in found:
                continue
            weights = (
                [file.path for file in made.files if file.path.endswith(WEIGHTS)]
                if version.is_current
                else []
            )
            because = f"{cause[0]} = {known[cause[1]]} at {cause[1]}"
            found[name, made.data_version] = Made(
                name, made.stage, made.data_version, because, weights, version.is_current
            )
            known.setdefault(made.data_version, name)
            more = True
    return sorted(found.values(), key=lambda one: (one.table, not one.is_current, one.data_version))


def _running(workspace: Path, affected: set[str]) -> set[str]:
    """Tables with unpublished work, such as a training's checkpoints, that may have read an affected table.

    On a disk the launched spec tells what is read; in an object store it does not lie, so all unpublished work counts.
    """
    if not affected:
        return set()
    if location.is_remote(workspace):
        found = set()
        for path in location.listing(workspace):
            parts = path.relative_to(workspace).parts
            if UNPUBLISHED in parts:
                found.add("/".join(parts[: parts.index(UNPUBLISHED)]))
        return found
    names = {str(workspace / name) for name in affected}
    return {
        _name(path.parent.parent, workspace)
        for path in workspace.rglob("_launch/spec.json")
        if (path.parent.parent / UNPUBLISHED).is_dir()
        and names & set(_strings(json.loads(path.read_text(encoding="utf-8"))))
    }


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
