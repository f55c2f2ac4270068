"""The images of all questions in a file that is mapped into memory: tens of thousands need not fit there, and each lies once."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.benchmarks.question import Asked


class MappedImages:
    """Distinct images, by sha256. The file has no name: it is gone with the last question that has an image in it."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: on the disk where the file is to be; the system's temporary folder where nothing is said."""
        # Closed with this object; what is mapped stays.
        self._stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._end = 0
        self._views: dict[str, memoryview] = {}

    def held(self, asked: Sequence[Asked]) -> list[Asked]:
        """The same questions, with their images in the file."""
        new = {one.image_sha256: one.image for one in asked if one.image_sha256 not in self._views}
        # A mapping begins at a whole page.
        start = -(-self._end // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        self._stream.seek(start)
        self._stream.writelines(new.values())
        self._stream.flush()
        self._end = start + sum(map(len, new.values()))
        whole = memoryview(b"")
        if self._end > start:
            file = self._stream.fileno()
            whole = memoryview(mmap.mmap(file, self._end - start, offset=start, access=mmap.ACCESS_READ))
        place = 0
        for digest, content in new.items():
            self._views[digest] = whole[place : place + len(content)]
            place += len(content)
        return [replace(one, image=self._views[one.image_sha256]) for one in asked]
