"""The files of benchmark tables, found by name, and the images that a table packs beside them."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.errors import BadInput
from pipelines.lake import manifest

IMAGES = "images.parquet"
"""Columns `name` and `image` (bytes): the images that a benchmark's questions name."""
REQUESTS = "requests.json"


class Files:
    """The files of some benchmark tables; the first table that has a file of a name gives it."""

    def __init__(self, tables: Sequence[Path]) -> None:
        self.tables = list(tables)
        self._paths: dict[str, Path] = {}
        for table in tables:
            for path in manifest.files(table):
                self._paths.setdefault(path.name, path)

    def languages(self, pattern: str) -> list[str]:
        """The languages for which there is a file of this name, `{language}` standing in it."""
        before, after = pattern.split("{language}")
        expression = re.compile(re.escape(before) + r"([a-z]{2,3})" + re.escape(after))
        return [match[1] for name in self._paths if (match := expression.fullmatch(name))]

    def find(self, name: str) -> Path | None:
        """The path of the file, or None."""
        return self._paths.get(name)

    def path(self, name: str) -> Path:
        """The path of the file.

        Raises:
            BadInput: no table has it.
        """
        if name in self._paths:
            return self._paths[name]
        raise BadInput(
            f"no benchmark table has a file {name!r}",
            where=", ".join(map(str, self.tables)),
            remedy="give the table that holds it, or make that table again",
        )

    def image(self, name: str, *, beside: Path, row: str) -> bytes:
        """The image of this name from the table in which the file `beside` lies.

        Raises:
            BadInput: the table has no such image; `row` says whose it is.
        """
        images = _images(beside.with_name(IMAGES))
        if name not in images:
            raise BadInput(
                f"the image {name!r} is missing",
                where=f"{beside}, {row}",
                remedy="put it into the benchmark's image folder and fetch the benchmark again",
            )
        return images[name]


@functools.lru_cache(maxsize=4)
def _images(path: Path) -> dict[str, bytes]:
    if not path.is_file():
        return {}
    columns = pq.read_table(path, columns=["name", "image"]).to_pydict()
    return dict(zip(columns["name"], columns["image"], strict=True))
