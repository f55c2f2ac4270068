"""The manifest of a table: its files and digests, what it was made of, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.errors import BadInput
from pipelines.lake import cache, location
from pipelines.lake.identity import document_sha256, file_sha256
from pipelines.lake.ledger import Ledger

MANIFEST_NAME = "_MANIFEST.json"
FORMAT = 1


class TableFile(BaseModel):
    """One file of a table. `path` is relative to the table's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    sha256: str
    bytes: int
    rows: int | None = None
    tag: str | None = None
    """In an object store: the store's tag (ETag), by which a changed object is noticed without reading it."""


class Manifest(BaseModel):
    """Everything there is to know about a table without opening its files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    stage: str
    code_version: str
    fingerprint: str
    parameters: dict[str, Any]
    inputs: dict[str, str]
    """Name of each input -> the data version that was read."""
    files: list[TableFile]
    ledger: Ledger | None = None
    metrics: dict[str, Any] = {}
    incomplete: str = ""
    """What another run may bring, in words; "" for a table that equal inputs never make again."""
    created: str
    seconds: float

    @property
    def data_version(self) -> str:
        """A digest of the content alone: equal content has an equal version, whenever it was made."""
        files = sorted((Path(file.path).name, file.sha256) for file in self.files)
        return document_sha256({"files": files})[:16]

    @property
    def rows(self) -> int:
        return sum(file.rows or 0 for file in self.files)


def exists(table: Path) -> bool:
    """Whether the table has been published."""
    return location.is_file(table / MANIFEST_NAME)


def read(table: Path) -> Manifest:
    """The manifest of a published table.

    Raises:
        BadInput: the table was never published, or its manifest cannot be read.
    """
    path = table / MANIFEST_NAME
    try:
        return Manifest.model_validate_json(location.read_bytes(path))
    except FileNotFoundError:
        raise BadInput(
            "this table does not exist yet",
            where=path,
            remedy="run the stage that makes it first (in Dagster: materialize the upstream asset)",
        ) from None
    except ValidationError as error:
        raise BadInput(
            f"this manifest cannot be read: {error.errors()[0]['msg']}",
            where=path,
            remedy="delete the table's folder and run its stage again",
        ) from None


def files(table: Path, suffix: str = "") -> list[Path]:
    """The table's files whose names end in `suffix`, in the manifest's order, on this machine's disk.

    Of a remote table they are fetched first: name a suffix, and read tars through `positioned`.
    """
    return _on_disk(table, [file for file in read(table).files if file.path.endswith(suffix)])


def folder(table: Path) -> Path:
    """The folder of this machine's disk that holds all the table's files: what a model loader is given."""
    made = read(table)
    if not location.is_remote(table):
        return table / made.fingerprint
    entries = [(Path(file.path), table / file.path, file.sha256) for file in made.files]
    name = f"{made.data_version}-{made.fingerprint}"
    return cache.beside_each_other(
        name,
        [(path.relative_to(made.fingerprint).as_posix(), source, sha256) for path, source, sha256 in entries],
    )


def data_root(table: Path) -> Path:
    """Where the table's files lie, here or in the object store; nothing is fetched."""
    return table / read(table).fingerprint


def file(table: Path, name: str) -> Path:
    """The one file of the table with this base name, or `folder/name` where a base name stands twice.

    Raises:
        BadInput: the table has no such file.
    """
    for entry in read(table).files:
        if (table / entry.path).as_posix().endswith(f"/{name}"):
            return _on_disk(table, [entry])[0]
    raise BadInput(
        f"the table has no file {name!r}",
        where=table / MANIFEST_NAME,
        remedy="the table was made by another version of its stage: run that stage again",
    )


def _on_disk(table: Path, entries: list[TableFile]) -> list[Path]:
    if not location.is_remote(table):
        return [table / entry.path for entry in entries]
    return cache.in_parallel(lambda entry: cache.fetched(table / entry.path, entry.sha256), entries)


def faults(table: Path, manifest: Manifest) -> list[str]:
    """What is wrong with the table's files: missing, of another size, or changed. Empty if nothing."""
    return list(
        _remote_faults(table, manifest) if location.is_remote(table) else _local_faults(table, manifest)
    )


def _local_faults(table: Path, manifest: Manifest) -> Iterator[str]:
    for entry in manifest.files:
        path = table / entry.path
        if not path.is_file():
            yield f"{path}: missing"
        elif path.stat().st_size != entry.bytes:
            yield f"{path}: {path.stat().st_size} bytes, manifest says {entry.bytes}"
        elif file_sha256(path) != entry.sha256:
            yield f"{path}: content differs from the manifest's sha256"


def _remote_faults(table: Path, manifest: Manifest) -> Iterator[str]:
    """By one listing: the store computed each tag from the content that it received."""
    found = location.listing(table / manifest.fingerprint)
    for entry in manifest.files:
        path = table / entry.path
        if path not in found:
            yield f"{location.url(path)}: missing"
        elif found[path][0] != entry.bytes:
            yield f"{location.url(path)}: {found[path][0]} bytes, manifest says {entry.bytes}"
        elif found[path][1] != entry.tag:
            yield f"{location.url(path)}: content differs from what was published"


def verify(table: Path) -> Manifest:
    """The manifest, after every file was found to match it.

    Raises:
        BadInput: a file is missing or changed; the message names each.
    """
    manifest = read(table)
    if found := faults(table, manifest):
        raise BadInput(
            "files of this table do not match its manifest:\n    " + "\n    ".join(found),
            where=table / MANIFEST_NAME,
            remedy="run the stage again: it notices and makes the table anew",
        )
    return manifest


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path`: a reader sees the old file or the new one, never a part."""
    location.write_bytes(path, content)


def tag(table: Path) -> str | None:
    """The manifest's tag in its object store; None where the table was never published, or is local."""
    if not location.is_remote(table) or not exists(table):
        return None
    return location.tag(table / MANIFEST_NAME)


def write(table: Path, manifest: Manifest, *, replaces: str | None = None) -> None:
    """Publish: from here on the table exists.

    `replaces`: in an object store, the `tag` of the manifest that was there when the work began.

    Raises:
        Conflict: another run published this table in the meantime.
    """
    text = json.dumps(manifest.model_dump(mode="json"), ensure_ascii=False, indent=1)
    content = text.encode() + b"\n"
    if location.is_remote(table):
        location.put_if(table / MANIFEST_NAME, content, replaces)
    else:
        write_atomically(table / MANIFEST_NAME, content)
