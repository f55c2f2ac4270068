"""What replaced versions of a table held, and were made of: models that were made from them live longer.

    <table>/_lineage/<data version>.json       its manifest, without parameters and metrics
    <table>/_lineage/<data version>.parquet    which sample stood in which shard, where the table places samples in shards

Written when a version is about to be replaced, so a table that was made once has none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import BadInput
from pipelines.lake import cache, location, manifest
from pipelines.lake.manifest import Manifest

FOLDER = "_lineage"
_COLUMNS = ("uid", "url", "shard", "languages")


@dataclass(frozen=True)
class Version:
    """One version of a table, as far as it is still known."""

    table: Path
    made: Manifest
    is_current: bool
    placements: list[Path]
    """Parquet files with `uid` and `shard`, and `url` or `languages` where the table has them."""

    @property
    def is_lost(self) -> bool:
        """Whether nobody can tell any more which samples stood in it."""
        return not self.placements and _has_shards(self.made)


def keep(table: Path) -> None:
    """Keep what the published version holds, before another replaces it; nothing where there is none."""
    if not manifest.exists(table):
        return
    try:
        made = manifest.read(table)
    except BadInput:
        # It was readable when the work began, so another run wrote it: the conditional write of the manifest says so.
        return
    note = table / FOLDER / f"{made.data_version}.json"
    if location.is_file(note):
        return
    if not location.is_remote(table):
        note.parent.mkdir(exist_ok=True)
    # A damaged version, which is why it is replaced, has no placements to keep: `Version.is_lost`.
    with contextlib.suppress(BadInput, OSError, pa.ArrowInvalid):
        _keep_placements(table, made, note.with_suffix(".parquet"))
    kept = made.model_copy(update={"parameters": {}, "metrics": {}})
    location.write_bytes(note, kept.model_dump_json().encode())


def _keep_placements(table: Path, made: Manifest, target: Path) -> None:
    """One file of the placements of all of the table's files; none where no file places samples."""
    files = placements(table, made)
    if not files:
        return
    scratch = cache.scratch(table) / FOLDER / target.name
    scratch.parent.mkdir(parents=True, exist_ok=True)
    partial = scratch.with_suffix(".partial")
    schema = pa.schema([field for field in pq.read_schema(files[0]) if field.name in _COLUMNS])
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for path in files:
            with pq.ParquetFile(path) as rows:
                for batch in rows.iter_batches(columns=schema.names):
                    writer.write_batch(batch.select(schema.names).cast(schema))
    partial.replace(scratch)
    if location.is_remote(table):
        location.upload(scratch, target)
        scratch.unlink()


def placements(table: Path, made: Manifest) -> list[Path]:
    """The published files that say which sample stands in which shard."""
    if not _has_shards(made):
        return []
    files = [path for path in manifest.files(table, ".parquet") if not path.name.startswith("dropped-")]
    return [path for path in files if {"uid", "shard"} <= set(pq.read_schema(path).names)]


def _has_shards(made: Manifest) -> bool:
    return any(file.path.endswith(".tar") for file in made.files)


def versions(table: Path) -> Iterator[Version]:
    """The published version of a table, and those that it replaced."""
    current = manifest.read(table)
    yield Version(table, current, True, placements(table, current))
    folder = table / FOLDER
    found = location.listing(folder) if location.is_remote(table) else folder.glob("*.json")
    for note in sorted(found):
        if note.suffix == ".json" and note.stem != current.data_version:
            made = Manifest.model_validate_json(location.read_bytes(note))
            placed = note.with_suffix(".parquet")
            yield Version(table, made, False, [cache.local(placed)] if location.is_file(placed) else [])
