"""Training shards: webdataset tars whose bytes depend on the samples alone, and an index for random access.

A sample is two members in a row, `<uid>.<ext>` and `<uid>.json`, so any webdataset reader can stream a
shard; a sample without an image is its `<uid>.json` alone, and one of several has `<uid>.1.<ext>`, `<uid>.2.<ext>`, ... after its
first. The index tells where the bytes of each stand, so a training loader parses no tar: it reads any sample with a
positioned read per member.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake import manifest
from pipelines.lake.positioned import PositionedFile, read_exactly
from pipelines.lake.tar import DeterministicTar

INDEX_FILE = "index.parquet"
INDEX = pa.schema(
    [
        ("uid", pa.string()),
        ("shard", pa.string()),
        ("image_offset", pa.int64()),
        ("image_length", pa.int64()),
        ("json_offset", pa.int64()),
        ("json_length", pa.int64()),
        ("languages", pa.list_(pa.string())),
    ]
)
"""`languages`: of the captions or turns, sorted. Offsets and lengths are bytes in the tar named by `shard`;
a sample without an image has 0 for both of its image."""
FURTHER_IMAGES = pa.field(
    "further_images", pa.list_(pa.struct([("offset", pa.int64()), ("length", pa.int64())]))
)
"""The images after the first, in their order: a column of tables that have samples of several images, and of no others."""

_MOST_OPEN = 256
"""Files that a reader keeps open; a process may have about a thousand."""


def shard_name(prefix: str, number: int) -> str:
    return f"{prefix}-{number:05d}.tar"


class ShardWriter:
    """Writes samples into `<prefix>-00000.tar`, `<prefix>-00001.tar`, ... in the order in which they are added.

    A tar has its name only when it is whole, on disk. Members have no times, no owners and one mode.
    """

    def __init__(self, out: Path, prefix: str, samples_per_shard: int, *, first: int = 0) -> None:
        """`first`: number of the first shard, for a worker that writes some of a table's shards."""
        self._out, self._prefix, self._samples_per_shard = out, prefix, samples_per_shard
        self._number = first
        self._stream: BinaryIO | None = None
        self._samples = 0
        self.rows: list[dict[str, Any]] = []
        """The index: one row of INDEX per sample."""

    @property
    def name(self) -> str:
        return shard_name(self._prefix, self._number)

    def add(
        self,
        uid: str,
        image: bytes | None,
        extension: str,
        document: Mapping[str, Any],
        languages: Iterable[str],
        *,
        further_images: Sequence[bytes] = (),
    ) -> None:
        """Add a sample: an image file's bytes, or none, and the document of its texts, which are in `languages`.

        `further_images`: image files after the first, in the order in which the texts have their markers.

        Raises:
            ValueError: there are further images and no first one, or one of them is empty.
        """
        if further_images and (image is None or not all(further_images)):
            raise ValueError(f"the sample {uid} has no first image, or an empty further one")
        if self._stream is None:
            stream = self._stream = self._partial.open("wb")
            self._tar = DeterministicTar(stream)
            self._samples = 0
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        image_offset = 0 if image is None else self._tar.add_bytes(f"{uid}.{extension}", image)
        further = [
            {
                "offset": self._tar.add_bytes(f"{uid}.{number}.{image_extension(one)}", one),
                "length": len(one),
            }
            for number, one in enumerate(further_images, start=1)
        ]
        json_offset = self._tar.add_bytes(f"{uid}.json", text)
        self.rows.append(
            {
                "uid": uid,
                "shard": self.name,
                "image_offset": image_offset,
                "image_length": 0 if image is None else len(image),
                "json_offset": json_offset,
                "json_length": len(text),
                "languages": sorted(set(languages)),
                FURTHER_IMAGES.name: further,
            }
        )
        self._samples += 1
        if self._samples == self._samples_per_shard:
            self.close()

    def close(self) -> None:
        """Finish the shard that is being written, if one is."""
        if self._stream is None:
            return
        self._tar.close()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._partial.replace(self._out / self.name)
        self._stream = None
        self._number += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif self._stream is not None:
            self._stream.close()
            self._partial.unlink()

    @property
    def _partial(self) -> Path:
        return self._out / f".{self.name}.partial"


def write_index(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write index rows in the order given."""
    several = any(row.get(FURTHER_IMAGES.name) for row in rows)
    pq.write_table(pa.Table.from_pylist(rows, INDEX.append(FURTHER_IMAGES) if several else INDEX), path)


class ShardReader:
    """Random access to the samples of a published table of shards, by their place in its index.

    Reads are positioned, so processes that were forked with the reader may share it, and a pickled
    reader opens its files anew.
    """

    def __init__(self, table: Path) -> None:
        """
        Raises:
            BadInput: the table does not exist, or is no table of shards.
        """
        # Of a table without samples of several images, pyarrow makes the column of nulls.
        index = pq.read_table(manifest.file(table, INDEX_FILE), schema=INDEX.append(FURTHER_IMAGES))
        self._folder = manifest.data_root(table)
        self.uids: pa.ChunkedArray = index["uid"]
        self.languages: pa.ChunkedArray = index["languages"]
        # Numbers as numpy: an Arrow scalar per field would cost more than the read itself.
        shards = index["shard"].combine_chunks().dictionary_encode()
        self._names: list[str] = shards.dictionary.to_pylist()
        self._shard = shards.indices.to_numpy()
        self._image = [index[name].to_numpy() for name in ("image_offset", "image_length")]
        self._json = [index[name].to_numpy() for name in ("json_offset", "json_length")]
        further = index[FURTHER_IMAGES.name].combine_chunks()
        counts = further.value_lengths().fill_null(0).to_numpy()
        # Few tables have such samples, and some have hundreds of millions of others.
        self._further_counts = counts if counts.any() else None
        self._further_starts = np.cumsum(counts) - counts if counts.any() else counts[:0]
        places = further.flatten()
        self._further = [places.field(name).to_numpy() for name in ("offset", "length")]
        self._open: dict[int, PositionedFile] = {}

    def __len__(self) -> int:
        return len(self._shard)

    def __getitem__(self, place: int) -> tuple[bytes, dict[str, Any]]:
        """The first image file's bytes and the document of the sample at a place in the index."""
        return self.image(place), self.document(place)

    def images(self, place: int) -> int:
        """How many images the sample has."""
        further = 0 if self._further_counts is None else int(self._further_counts[place])
        return int(self._image[1][place] > 0) + further

    def image(self, place: int, number: int = 0) -> bytes:
        """The bytes of one of the sample's image files, the first by default; none where the sample has no image.

        Raises:
            IndexError: it has no image of this number.
        """
        if number == 0:
            return self._read(place, int(self._image[0][place]), int(self._image[1][place]))
        if not 0 < number < self.images(place):
            raise IndexError(
                f"the sample at place {place} has {self.images(place)} images, none of number {number}"
            )
        at = int(self._further_starts[place]) + number - 1
        return self._read(place, int(self._further[0][at]), int(self._further[1][at]))

    def document(self, place: int) -> dict[str, Any]:
        text = self._read(place, int(self._json[0][place]), int(self._json[1][place]))
        document: dict[str, Any] = json.loads(text)
        return document

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def _read(self, place: int, offset: int, length: int) -> bytes:
        shard = int(self._shard[place])
        if shard not in self._open:
            if len(self._open) == _MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            # Places come in any order: of a remote shard exactly the sample is read, nothing ahead.
            self._open[shard] = PositionedFile(self._folder / self._names[shard], ahead_bytes=0)
        return read_exactly(
            self._open[shard],
            offset,
            length,
            what=f"the sample at place {place} of the index",
            remedy="run the stage again: it notices the damage and makes the table anew",
        )


def image_extension(image: bytes) -> str:
    """The file name extension that fits the first bytes of an image file; `bin` if none is known."""
    if image.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if image.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if image.startswith(b"RIFF") and image[8:12] == b"WEBP":
        return "webp"
    if image.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    return "bin"
