"""Where a run writes, and how its finished files, and what a resume needs, leave this machine before the run ends.

    <table>/<fingerprint>/...          files of the table, when they are finished
    <table>/_work/<fingerprint>/...    what was kept for a resume, by path below the work folder; gone after the publish

Both only where the table lies in an object store: on a disk they are in the work folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.lake import cache, location
from pipelines.lake.identity import file_sha256
from pipelines.lake.manifest import TableFile

UNPUBLISHED = "_work"


@dataclass(frozen=True)
class Work:
    """Where a run writes: `out` is published whole; the rest of `folder` is state for a resume."""

    folder: Path
    destination: Path | None = None
    """Where the files go, if that is an object store: the table's folder of this fingerprint."""

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def finish(self, path: Path) -> None:
        """Say that a file of `out` is whole, and will not be read here again.

        Where the table is remote it is uploaded now and its local copy deleted, so that a run needs
        disk for the files in the making only. Safe to be called from worker processes.
        """
        if self.destination is None:
            return
        name = path.relative_to(self.out).as_posix()
        record = _ship(path, name, self.destination)
        note = self.note(path)
        note.parent.mkdir(parents=True, exist_ok=True)
        location.write_bytes(note, record.model_dump_json().encode())
        path.unlink()

    def note(self, path: Path) -> Path:
        """What stands here for a file of `out` that is finished, and in the store."""
        return self._shipped / f"{path.relative_to(self.out).as_posix()}.json"

    @property
    def kept_at(self) -> Path | None:
        """Where in the object store what is kept for a resume lies; None where the table is on a disk."""
        if self.destination is None:
            return None
        return self.destination.parent / UNPUBLISHED / self.destination.name

    def keep(self, path: Path) -> None:
        """Say that a file of `folder` is whole, and that a later run goes on from it.

        Where the table is remote it is copied there: the later run may be on another machine.
        """
        if self.kept_at is not None:
            location.upload(path, self.kept_at / path.relative_to(self.folder))

    def restore(self, paths: Iterable[Path], *, growing: bool = False) -> None:
        """Fetch those of the files of `folder` that an earlier run kept and that are not here.

        `growing`: they only ever grow, so one that is shorter here was left by a run before that run.
        """
        if self.kept_at is None:
            return
        kept = self.kept_at
        missing = {path for path in paths if growing or not path.is_file()}
        if not missing:
            return
        there = {
            self.folder / path.relative_to(kept): size for path, (size, _) in location.listing(kept).items()
        }
        found = sorted(
            path
            for path in missing
            if path in there and not (path.is_file() and path.stat().st_size >= there[path])
        )
        cache.in_parallel(lambda path: _fetch(kept / path.relative_to(self.folder), path), found)

    def shipped(self) -> list[TableFile]:
        """The files that are in the object store already; paths relative to `out`."""
        return [TableFile.model_validate_json(note.read_bytes()) for note in self._notes()]

    def files(self) -> list[TableFile]:
        """Every file of the run, by path relative to `out`; uploads those that are still here."""
        here = [path for path in sorted(self.out.rglob("*")) if path.is_file()]
        names = [path.relative_to(self.out).as_posix() for path in here]
        if self.destination is None:
            found = [_described(path, name) for path, name in zip(here, names, strict=True)]
        else:
            target = self.destination
            pairs = list(zip(here, names, strict=True))
            found = cache.in_parallel(lambda pair: _ship(*pair, target), pairs)
            found += [record for record in self.shipped() if record.path not in names]
        return sorted(found, key=lambda file: Path(file.path))

    @property
    def _shipped(self) -> Path:
        return self.folder / "shipped"

    def _notes(self) -> Iterator[Path]:
        yield from sorted(self._shipped.rglob("*.json"))


def _fetch(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with partial.open("wb") as stream:
        location.download(source, stream)
    partial.replace(target)


def _described(path: Path, name: str) -> TableFile:
    return TableFile(path=name, sha256=file_sha256(path), bytes=path.stat().st_size)


def _ship(path: Path, name: str, destination: Path) -> TableFile:
    described = _described(path, name)
    return described.model_copy(update={"tag": location.upload(path, destination / name)})
