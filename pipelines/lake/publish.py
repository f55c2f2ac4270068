"""The moment in which a table comes to exist: files first, whole and named by the fingerprint, then the manifest."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.errors import BadInput
from pipelines.lake import cache, location, manifest
from pipelines.lake.manifest import Manifest
from pipelines.lake.work import UNPUBLISHED, Work

_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


def publish(
    table: Path,
    work: Work,
    described: Manifest,
    rows: Mapping[str, int],
    stable_names: Sequence[str],
    *,
    replaces: str | None,
) -> Manifest:
    """Publish the files of `work` as `table`; return the manifest.

    A kill at any moment leaves the old table or the new one. `rows`: by path below `out`.
    `replaces`: the remote manifest's tag when the work began, so that a run that lost its lease
    unknowingly cannot replace what another run published.

    Raises:
        BadInput: another run published in the meantime.
    """
    from pipelines.lake import lineage  # loads pyarrow, without which the web UI starts

    name = described.fingerprint
    files = [
        file.model_copy(update={"path": f"{name}/{file.path}", "rows": rows.get(file.path)})
        for file in work.files()
    ]
    made = described.model_copy(update={"files": files})
    lineage.keep(table)
    if work.destination is None:
        final = table / name
        if final.exists():
            # Left by a run that was killed between the move and the manifest, or damaged since.
            shutil.rmtree(final)
        work.out.replace(final)
        manifest.write(table, made)
    else:
        known = {table / file.path: (file.bytes, file.tag) for file in files}
        there = location.listing(table / name)
        if lost := [path for path, told in known.items() if there.get(path) != told]:
            raise BadInput(
                f"{len(lost)} objects that this run uploaded are gone, or were replaced by another's",
                where=location.url(lost[0]),
                remedy="run it again: what is not there is made again; nothing was published",
            )
        location.remove([path for path in there if path not in known])
        try:
            manifest.write(table, made, replaces=replaces)
        except location.Conflict:
            raise BadInput(
                "another run published this table while this one worked",
                where=table,
                remedy="run it again: it finds the table made, or makes it anew",
            ) from None
    tidy(table, made, stable_names)
    shutil.rmtree(cache.scratch(table) / UNPUBLISHED, ignore_errors=True)
    if location.is_remote(table):
        location.remove(list(location.listing(table / UNPUBLISHED)))
    return made


def _files_of(made: Manifest, stable_names: Sequence[str]) -> list[str]:
    """The files that the stable names stand for, below the table's folder of this fingerprint: a name may be a folder's."""
    names = [file.path.removeprefix(f"{made.fingerprint}/") for file in made.files]
    return [name for name in names if any(name == one or name.startswith(f"{one}/") for one in stable_names)]


def _remove_others(folder: Path, kept: set[Path]) -> None:
    """What an earlier publish put into a folder that goes by a stable name, and this one did not."""
    if location.is_remote(folder):
        location.remove([path for path in location.listing(folder) if path not in kept])
    elif folder.is_dir():
        for path in folder.rglob("*"):
            if path.is_file() and path not in kept:
                path.unlink()


def tidy(table: Path, made: Manifest, stable_names: Sequence[str]) -> None:
    """What follows a publish: the stable names show the new files; old files, and what was kept for a resume, go.

    Done again when a table is reused, for a run may have been killed just before it.
    """
    shown = _files_of(made, stable_names)
    for stable in shown:
        content = location.read_bytes(table / made.fingerprint / stable)
        target = table / stable
        if not location.is_file(target) or location.read_bytes(target) != content:
            if not location.is_remote(table):
                target.parent.mkdir(parents=True, exist_ok=True)
            location.write_bytes(target, content)
    for name in stable_names:
        _remove_others(table / name, {table / one for one in shown})
    shutil.rmtree(cache.scratch(table) / UNPUBLISHED / made.fingerprint, ignore_errors=True)
    if location.is_remote(table):
        location.remove(list(location.listing(table / UNPUBLISHED / made.fingerprint)))
    for old in location.folders(table):
        # Only what stages made: `table` may be a folder in which a person keeps other things.
        if old.name != made.fingerprint and _FINGERPRINT.fullmatch(old.name):
            if location.is_remote(table):
                location.remove(list(location.listing(old)))
            else:
                shutil.rmtree(old)
