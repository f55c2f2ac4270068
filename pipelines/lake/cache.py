"""Files of an object store on this machine's disk: by digest, so a file is fetched once and never stale.

    <LAKE_CACHE>/files/<sha256>/<name>     fetched files
    <LAKE_CACHE>/tables/<data version>/    tables whose files must lie beside each other (models)
    <LAKE_CACHE>/work/<table>/             where a stage whose table is remote does its work

`LAKE_CACHE` is an environment variable, by default a folder of the user's cache. It may be deleted
whenever nothing runs: a stage whose work folder is gone starts again from its beginning.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pipelines.errors import BadInput
from pipelines.lake import location

VARIABLE = "LAKE_CACHE"
TRANSFERS = 8
"""Files that are copied at once: one connection to an object store gives a part of the bandwidth only."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def root() -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "multilingual-vlm-factory"
    return Path(os.environ.get(VARIABLE) or default).expanduser()


def scratch(table: Path) -> Path:
    """The local folder in which runs that make `table` keep their state: the table itself where it is local."""
    if not location.is_remote(table):
        return table
    name = hashlib.sha256(location.url(table).encode()).hexdigest()[:16]
    return root() / "work" / f"{table.name}-{name}"


def in_parallel(call: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
    """`call` for every item, several at once; results in the items' order."""
    with ThreadPoolExecutor(TRANSFERS) as threads:
        return list(threads.map(call, items))


def fetched(path: Path, sha256: str) -> Path:
    """The file at `path` on this machine's disk, held against its digest when it is fetched.

    Raises:
        BadInput: the object is missing or has another content.
    """
    return _fetched(path, sha256, sha256) if location.is_remote(path) else path


def local(path: Path) -> Path:
    """A file that no manifest vouches for (a URL list, a spec), on this machine's disk.

    Raises:
        BadInput: the object is missing.
    """
    if not location.is_remote(path):
        return path
    key = hashlib.sha256(f"{location.url(path)} {location.tag(path)}".encode()).hexdigest()
    return _fetched(path, key, None)


def _fetched(path: Path, key: str, sha256: str | None) -> Path:
    target = root() / "files" / key / path.name
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", delete=False) as stream:
        partial = Path(stream.name)
        try:
            location.download(path, stream)
            stream.flush()
            with partial.open("rb") as read:
                digest = hashlib.file_digest(read, "sha256").hexdigest()
            if sha256 is not None and digest != sha256:
                raise _bad(path, "this object is not what its manifest says: it has another sha256")
        except FileNotFoundError:
            partial.unlink()
            raise _bad(path, "this object is missing") from None
        except BaseException:
            partial.unlink()
            raise
    partial.replace(target)
    return target


def _bad(path: Path, what: str) -> BadInput:
    remedy = "run the stage that makes it again: it notices and makes the table anew"
    return BadInput(what, where=location.url(path), remedy=remedy)


def beside_each_other(name: str, files: Sequence[tuple[str, Path, str]]) -> Path:
    """A local folder with the files (relative path, remote path, sha256) of a remote table."""
    folder = root() / "tables" / name

    def link(entry: tuple[str, Path, str]) -> None:
        relative, path, sha256 = entry
        target = folder / relative
        if target.is_file():
            return
        source = fetched(path, sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except FileExistsError:
            return

    in_parallel(link, files)
    return folder
