"""Where a run writes, and how its finished files, and what a resume needs, leave this machine before the run ends.

    <table>/<fingerprint>/...          files of the table, when they are finished
    <table>/_work/<fingerprint>/...    what was kept for a resume, by path below the work folder; gone after the publish

Both only where the table lies in an object store: on a disk they are in the work folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Set
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

    def finish(self, *paths: Path) -> None:
        """Say that files of `out` are whole, and will not be read here again.

        Where the table is remote they are uploaded now and their local copies deleted, so that a run needs
        disk for the files in the making only. One note, by the name of the first, stands for them all; it is kept for
        later runs. Safe to be called from worker processes.
        """
        if self.destination is None:
            return
        records = [_ship(path, path.relative_to(self.out).as_posix(), self.destination) for path in paths]
        note = self.note(paths[0])
        note.parent.mkdir(parents=True, exist_ok=True)
        location.write_bytes(note, "\n".join(record.model_dump_json() for record in records).encode())
        self.keep(note)
        for path in paths:
            path.unlink()

    @property
    def notes(self) -> Path:
        """The folder of all notes."""
        return self.folder / "shipped"

    def note(self, path: Path) -> Path:
        """What stands here for a file of `out` that is finished, and in the store."""
        return self.notes / f"{path.relative_to(self.out).as_posix()}.json"

    def has(self, path: Path) -> bool:
        """Whether a file of `out`, or the first of several that were finished together, is here or in the store."""
        return path.is_file() or self.note(path).is_file()

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

    def restore(self, paths: Iterable[Path], *, growing: bool = False) -> Set[Path]:
        """Fetch what an earlier run kept of these files and folders, below `folder`, and that is not here.

        Return all files that are kept; none where the table is on a disk.
        A note among them is deleted, whichever run left it, unless the store holds the very objects that it speaks of.
        `growing`: files only ever grow, so one that is shorter here was left by a run before that run.
        """
        if self.kept_at is None:
            return set()
        kept, wanted = self.kept_at, set(paths)
        there = {
            self.folder / path.relative_to(kept): size for path, (size, _) in location.listing(kept).items()
        }
        missing = sorted(
            path
            for path, size in there.items()
            if _is_among(path, wanted)
            and not (path.is_file() and (not growing or path.stat().st_size >= size))
        )
        cache.in_parallel(lambda path: _fetch(kept / path.relative_to(self.folder), path), missing)
        self._forget_lost(note for note in self._notes() if _is_among(note, wanted))
        return there.keys()

    def _forget_lost(self, notes: Iterable[Path]) -> None:
        """Delete the notes that speak of objects that are gone or were replaced since."""
        # Read before the store is listed: parts that run at the same time go on finishing files.
        spoken_of = {note: _records(note) for note in notes}
        if self.destination is None or not spoken_of:
            return
        there = location.listing(self.destination)
        for note, records in spoken_of.items():
            if any(there.get(self.destination / one.path) != (one.bytes, one.tag) for one in records):
                note.unlink()

    def shipped(self) -> list[TableFile]:
        """The files that are in the object store already; paths relative to `out`."""
        return [record for note in self._notes() for record in _records(note)]

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

    def _notes(self) -> Iterator[Path]:
        yield from sorted(self.notes.rglob("*.json"))


def _records(note: Path) -> list[TableFile]:
    """A record per line."""
    return [TableFile.model_validate_json(line) for line in note.read_bytes().splitlines()]


def _is_among(path: Path, wanted: Set[Path]) -> bool:
    """Whether the path, or a folder above it, is wanted."""
    return path in wanted or any(folder in wanted for folder in path.parents)


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
