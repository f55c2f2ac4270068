"""The manifest of a table: its files and digests, what it was made of, and what came of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.errors import BadInput
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
    return (table / MANIFEST_NAME).is_file()


def read(table: Path) -> Manifest:
    """The manifest of a published table.

    Raises:
        BadInput: the table was never published, or its manifest cannot be read.
    """
    path = table / MANIFEST_NAME
    try:
        return Manifest.model_validate_json(path.read_bytes())
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
    """The table's files whose names end in `suffix`, in the manifest's order."""
    return [table / file.path for file in read(table).files if file.path.endswith(suffix)]


def folder(table: Path) -> Path:
    """The folder that holds the table's files: what a model loader is given."""
    return table / read(table).fingerprint


def file(table: Path, name: str) -> Path:
    """The one file of the table with this base name, or `folder/name` where a base name stands twice.

    Raises:
        BadInput: the table has no such file.
    """
    for path in files(table):
        if path.as_posix().endswith(f"/{name}"):
            return path
    raise BadInput(
        f"the table has no file {name!r}",
        where=table / MANIFEST_NAME,
        remedy="the table was made by another version of its stage: run that stage again",
    )


def faults(table: Path, manifest: Manifest) -> list[str]:
    """What is wrong with the files on disk: missing, of another size, or changed. Empty if nothing."""
    found = []
    for entry in manifest.files:
        path = table / entry.path
        if not path.is_file():
            found.append(f"{path}: missing")
        elif path.stat().st_size != entry.bytes:
            found.append(f"{path}: {path.stat().st_size} bytes, manifest says {entry.bytes}")
        elif file_sha256(path) != entry.sha256:
            found.append(f"{path}: content differs from the manifest's sha256")
    return found


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
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def write(table: Path, manifest: Manifest) -> None:
    """Publish: from here on the table exists."""
    text = json.dumps(manifest.model_dump(mode="json"), ensure_ascii=False, indent=1)
    write_atomically(table / MANIFEST_NAME, text.encode() + b"\n")
