"""Where weights come from: a folder made here or elsewhere, or a model hub; checked, and safetensors only.

A source is a local path or a hub id (`owner/name`, with `@revision` where one is pinned). Code paths
do not differ after `locate`: what it returns is a local path whose digest was checked when one was given.
Imports no torch, so that a spec can look at weights; `models.tensors` reads and writes them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
VOCABULARY_FILE = "vocab.txt"
"""CPM-Bee's."""
INDEX_FILE = "model.safetensors.index.json"
HUB_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model")
"""What is fetched from a hub: never pickles, never code."""

CONVERT = "python -m pipelines.foundations.from_pickle"
"""The command that makes safetensors of published pickles."""

_HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
_DIGEST_CHARACTERS = 64


class WeightsError(Exception):
    """Weights that cannot be used: missing, incomplete, of another digest, or in a refused format.

    `where` names the file, folder or hub id; `remedy` says what to do.
    """

    def __init__(
        self, message: str, *, where: str | Path = "", remedy: str = "check the model's source"
    ) -> None:
        self.message, self.where, self.remedy = message, str(where), remedy
        super().__init__(f"{message} ({where})" if str(where) else message)


def is_hub_id(source: str) -> bool:
    """Whether a source is named as model hubs name it, and is no path here."""
    return _HUB_ID.fullmatch(source) is not None and not Path(source).exists()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hex, read in bounded memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(path: Path) -> str:
    """The SHA-256 of a file, or of a folder: of the lines `<sha256>  <relative path>` of its files, by path.

    Hidden files do not count: hubs and file managers leave some behind.
    """
    if path.is_file():
        return file_digest(path)
    total = hashlib.sha256()
    names = sorted(
        file.relative_to(path).as_posix()
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    for name in names:
        total.update(f"{file_digest(path / name)}  {name}\n".encode())
    return total.hexdigest()


def locate(source: str | Path, *, sha256: str | None = None, patterns: Sequence[str] = HUB_PATTERNS) -> Path:
    """The local path of a source: the path itself, or the folder that was fetched from the hub.

    `sha256` pins the content (see `digest`).

    Raises:
        WeightsError: there is no such path or hub id, or its digest differs.
    """
    path = Path(source)
    if not path.exists():
        path = _fetch(str(source), patterns)
    if sha256 is not None:
        verify(path, sha256)
    return path


def verify(path: Path, sha256: str) -> None:
    """Hold the content of a file or folder against its pinned digest.

    Raises:
        WeightsError: they differ.
    """
    if len(sha256) != _DIGEST_CHARACTERS:
        raise WeightsError(
            f"{sha256!r} is no SHA-256",
            where=path,
            remedy=f"a digest has {_DIGEST_CHARACTERS} hex characters",
        )
    found = digest(path)
    if found != sha256.lower():
        raise WeightsError(
            f"the weights have the digest {found}, but {sha256.lower()} is pinned",
            where=path,
            remedy="fetch the weights again, or correct the pinned sha256 if the change is wanted",
        )


def _fetch(source: str, patterns: Sequence[str]) -> Path:
    match = _HUB_ID.fullmatch(source)
    if match is None:
        raise WeightsError(
            "there is no such model file or folder", where=source,
            remedy="give an existing path, or a hub id such as owner/name",
        )  # fmt: skip
    # Imported here: most runs never reach for a hub.
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            huggingface_hub.snapshot_download(
                match["id"], revision=match["revision"], allow_patterns=list(patterns)
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        # ValueError: the hub library's own validation of ids, and of cached snapshots it cannot complete.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"there is no such path here, and the model hub did not give it: {reason}",
            where=source,
            remedy="check the path or hub id; without a hub, copy the model's folder here and give its path",
        ) from error


def require(folder: Path, names: Sequence[str]) -> None:
    """Make sure that a model folder has these files.

    Raises:
        WeightsError: names those that it lacks.
    """
    lacking = [name for name in names if not (folder / name).is_file()]
    if not lacking:
        return
    pickles = sorted(file.name for file in folder.glob("*.bin")) if folder.is_dir() else []
    if WEIGHTS_FILE in lacking and pickles:
        raise WeightsError(
            f"this folder has its weights as a pickle ({', '.join(pickles)}), which is never loaded",
            where=folder,
            remedy=f"convert it once, `{CONVERT} {folder} OUTPUT`, and name OUTPUT instead",
        )
    if WEIGHTS_FILE in lacking and folder.is_dir():
        raise WeightsError(
            f"there are no safetensors in it: it lacks {', '.join(lacking)}",
            where=folder,
            remedy="copy the whole folder again, or run the stage that makes the model; of a hub's model that is published "
            f"as pickles alone, which are not fetched, make a folder once: `{CONVERT} OWNER/NAME FOLDER`, and name FOLDER",
        )
    raise WeightsError(
        f"this model folder lacks {', '.join(lacking)}",
        where=folder,
        remedy="copy the whole folder again, or run the stage that makes the model",
    )


def require_weights(folder: Path) -> None:
    """Make sure that a folder has safetensors: one file, or parts with their index.

    Raises:
        WeightsError: it has none; says how they are made.
    """
    if not (folder / INDEX_FILE).is_file():
        require(folder, [WEIGHTS_FILE])


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder.

    Raises:
        WeightsError: the file is missing or holds no JSON object.
    """
    require(path.parent, [path.name])
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(
            f"this file is no JSON: {error}", where=path, remedy="copy the file again"
        ) from error
    if not isinstance(document, dict):
        raise WeightsError("this file holds no JSON object", where=path, remedy="copy the file again")
    return document
