"""The files of benchmark tables, found by name, and the images that a table packs beside them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.errors import BadInput
from pipelines.lake import manifest

IMAGES = "images.parquet"
"""Columns `name` and `image` (bytes): the images that a benchmark's questions name."""
REQUESTS = "requests.json"
WORLD_STAGE = "world"


def languages(pattern: str, names: Iterable[str]) -> list[str]:
    """The languages for which one of the names is this pattern, `{language}` standing in it."""
    before, after = pattern.split("{language}")
    expression = re.compile(re.escape(before) + r"([a-z]{2,3})" + re.escape(after))
    return [match[1] for name in names if (match := expression.fullmatch(name))]


class Files:
    """The files of some benchmark tables; the first table that has a file of a name gives it.

    The procedural world shares the layout of published benchmarks. Its questions give way to published ones as a whole: a
    language of it among a published benchmark's would be of other items under the same names. Of a table in an object store, only the files that are asked for are fetched.
    """

    def __init__(self, tables: Sequence[Path]) -> None:
        made = {table: manifest.read(table) for table in tables}
        self._worlds = {table for table in made if made[table].stage == WORLD_STAGE}
        self.tables = sorted(made, key=lambda table: table in self._worlds)
        self._folder: Path | None = None
        self._table_of: dict[str, Path] = {}
        for table in self.tables:
            for file in made[table].files:
                self._table_of.setdefault(Path(file.path).name, table)

    @classmethod
    def in_folder(cls, folder: Path) -> Files:
        """The files of a folder that is not yet a published table."""
        files = cls([])
        files._folder = folder
        files.tables = [folder]
        files._table_of = {path.name: folder for path in sorted(folder.iterdir())}
        return files

    def languages(self, pattern: str) -> list[str]:
        """The languages for which there is a file of this name, `{language}` standing in it."""
        homes = self.homes(pattern)
        return languages(pattern, [name for name, table in self._table_of.items() if table in homes])

    def homes(self, pattern: str) -> list[Path]:
        """The tables that give the files of this pattern: the world's only where no other has one."""
        holding = {table for name, table in self._table_of.items() if languages(pattern, [name])}
        return [table for table in self.tables if table in (holding - self._worlds or holding)]

    def beside(self, file: Path, name: str) -> Path | None:
        """The file of this name in the table that gives `file`; None where that table has none."""
        if self._folder is not None:
            return self.find(name)
        table = self._table_of[file.name]
        has = name in {Path(one.path).name for one in manifest.read(table).files}
        return manifest.file(table, name) if has else None

    def find(self, name: str) -> Path | None:
        """The path of the file, or None."""
        if name not in self._table_of:
            return None
        return manifest.file(self._table_of[name], name) if self._folder is None else self._folder / name

    def path(self, name: str) -> Path:
        """The path of the file.

        Raises:
            BadInput: no table has it.
        """
        found = self.find(name)
        if found is not None:
            return found
        raise BadInput(
            f"no benchmark table has a file {name!r}",
            where=", ".join(map(str, self.tables)),
            remedy="give the table that holds it, or make that table again",
        )

    def image(self, name: str, *, beside: Path, row: str) -> bytes:
        """The image of this name from the table that holds the file `beside`.

        Raises:
            BadInput: the table has no such image; `row` says whose it is.
        """
        packed = self.beside(beside, IMAGES)
        images = {} if packed is None else _images(packed)
        if name not in images:
            raise BadInput(
                f"the image {name!r} is missing",
                where=f"{beside}, {row}",
                remedy="put it into the benchmark's image folder and fetch the benchmark again",
            )
        return images[name]


@functools.lru_cache(maxsize=1)  # the languages of a benchmark are read one after the other
def _images(path: Path) -> dict[str, bytes]:
    columns = pq.read_table(path, columns=["name", "image"]).to_pydict()
    return dict(zip(columns["name"], columns["image"], strict=True))
