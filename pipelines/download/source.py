"""Reads a crawl's source as a stream and cuts it into shards, in bounded memory.

It is read twice: once to count its rows and find those that came before, once to cut it. A shard's file
is written only when a worker is about to take it. Rows that cannot be used are set aside with their reasons.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.crawls import CrawlManifest
from pipelines.download.duplicates import later_duplicates
from pipelines.download.readers import records
from pipelines.download.readers.record import Place
from pipelines.download.reasons import Failure, Reason
from pipelines.download.rows import Row, checked
from pipelines.download.slice import Slice
from pipelines.errors import BadInput
from pipelines.lake.takedown import Demands


class ShardRow(NamedTuple):
    """A row whose image is wanted; `position` is its place within the shard."""

    position: int
    uid: str
    url: str
    text: str
    image: Place


class RejectedRow(NamedTuple):
    """A row that was dropped before its image was looked at."""

    position: int
    uid: str
    url: str
    text: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Shard:
    """A run of rows of the source: those that go on, and those dropped already."""

    number: int
    rows: list[tuple[int, Row]] = field(default_factory=list)
    """With positions within the shard."""
    rejected: list[tuple[int, Row, Failure]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.rows) + len(self.rejected)

    @property
    def normalised(self) -> int:
        return sum(row.normalised for _, row in self.rows)

    @property
    def taken_down(self) -> int:
        return sum(failure.reason is Reason.TAKEN_DOWN for _, _, failure in self.rejected)

    def without(self, demands: Demands) -> Shard:
        """The shard with those of its rows dropped whose removal was demanded: nothing asks for their images."""
        if not demands or not self.rows:
            return self
        urls = pa.chunked_array([pa.array([row.url for _, row in self.rows], pa.string())])
        demanded = demands.match(urls).to_pylist()
        told = list(zip(self.rows, demanded, strict=True))
        dropped = [(at, row, Failure(Reason.TAKEN_DOWN)) for (at, row), wanted in told if wanted]
        return Shard(self.number, [one for one, wanted in told if not wanted], self.rejected + dropped)

    def write(self, path: Path) -> None:
        """Write the shard as JSON, which `read_shard` reads in the worker."""
        rows = [ShardRow(at, row.uid, row.url, row.text, row.image) for at, row in self.rows]
        rejected = [
            RejectedRow(at, row.uid, row.url, row.text, failure.reason.value, failure.detail)
            for at, row, failure in self.rejected
        ]
        path.write_text(json.dumps({"rows": rows, "rejected": rejected}), encoding="ascii")


def read_shard(path: Path) -> tuple[list[ShardRow], list[RejectedRow]]:
    """The rows that go on, and those dropped already."""
    document = json.loads(path.read_text(encoding="ascii"))
    rows = [ShardRow(at, uid, url, text, Place(*image)) for at, uid, url, text, image in document["rows"]]
    return rows, [RejectedRow(*row) for row in document["rejected"]]


class Source:
    """The rows of a crawl, in the order of its files."""

    def __init__(self, manifest: CrawlManifest, scratch: Path) -> None:
        """Read the source once.

        Raises:
            BadInput: a file is damaged or not of its format, or there are no rows at all.
        """
        self._manifest, self._scratch = manifest, scratch
        self.size = 0
        self.first_url = ""
        """The first URL on the web that can be used, or an empty string."""
        self._slice = None if manifest.rows is None else Slice(manifest.rows)
        counted = self._counted() if self._slice is None else self._slice.watch(self._counted())
        self._duplicates = later_duplicates(counted, scratch)
        if self.size == 0:
            raise BadInput(
                "the source is empty: it has no rows",
                where=manifest.files[0],
                remedy="name a file with rows in the crawl manifest",
            )

    def rows(self) -> Iterator[Row]:
        """Every row, checked for itself."""
        kind = self._manifest.kind
        return (checked(record, kind) for record in records(self._manifest, self._scratch))

    def shards(self, rows_per_shard: int) -> Iterator[Shard]:
        """Cut the source into shards, and set aside rows that cannot be used or came before."""
        shard = Shard(0)
        for at, row in enumerate(self.rows()):
            failure = row.failure
            if failure is None and _contains(self._duplicates, at):
                failure = Failure(Reason.DUPLICATE_ROW)
            if failure is None and self._slice is not None and not self._slice.holds(row.uid):
                failure = Failure(Reason.BEYOND_SLICE)
            place = at % rows_per_shard
            if failure is None:
                shard.rows.append((place, row))
            else:
                shard.rejected.append((place, row, failure))
            if shard.size == rows_per_shard:
                yield shard
                shard = Shard(shard.number + 1)
        if shard.size:
            yield shard

    def _counted(self) -> Iterator[tuple[int, str]]:
        for at, row in enumerate(self.rows()):
            self.size = at + 1
            if row.failure is None:
                if not self.first_url and row.image.kind == "web":
                    self.first_url = row.url
                yield at, row.uid


def _contains(ascending: npt.NDArray[np.uint64], value: int) -> bool:
    at = int(np.searchsorted(ascending, np.uint64(value)))
    return at < len(ascending) and int(ascending[at]) == value
