"""Identities and digests: names that depend on content, never on position or time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

UID_LENGTH = 32


def pair_uid(url: str, caption: str) -> str:
    """The identity of an image-text pair: 128 bits, in hex, of its URL and caption.

    A zero byte separates the two, so that no other split of the same characters
    gives the same uid. The same pair has the same uid in every crawl, shard and run.
    """
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass"))
    digest.update(b"\0")
    digest.update(caption.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:UID_LENGTH]


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex, read in bounded memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_sha256(folder: Path, *, only: Collection[str] | None = None) -> str:
    """The SHA-256 of a folder's files: their names below it, and their content.

    `only`: of these alone, by path below the folder; one that is missing counts as missing.
    """
    paths = folder.rglob("*") if only is None else [folder / name for name in only]
    files = {
        path.relative_to(folder).as_posix(): file_sha256(path) for path in sorted(paths) if path.is_file()
    }
    return document_sha256(files)


def document_sha256(document: Mapping[str, Any]) -> str:
    """The SHA-256 of a JSON document, whatever the order of its keys."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
