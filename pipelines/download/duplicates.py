"""Finds the rows whose uid came before, in memory that does not grow with the list.

The uids are dealt into buckets on disk by their last byte; equal uids meet in one bucket, and a
bucket at a time is sorted. A list of 10^9 rows takes 24 GB of scratch disk and 400 MB of memory.
"""

from __future__ import annotations

import contextlib
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

_BUCKETS = 64
_RECORD = struct.Struct("<16sQ")
_FIELDS = np.dtype([("low", "<u8"), ("high", "<u8"), ("position", "<u8")])


def later_duplicates(uids: Iterable[tuple[int, str]], scratch: Path) -> npt.NDArray[np.uint64]:
    """The positions, ascending, of all rows but the first with each uid.

    Args:
        uids: position and uid (32 hex digits) of each row.
        scratch: a folder for the buckets, which are gone afterwards.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        paths = [Path(folder) / str(index) for index in range(_BUCKETS)]
        with contextlib.ExitStack() as stack:
            buckets = [stack.enter_context(path.open("wb")) for path in paths]
            for position, uid in uids:
                key = bytes.fromhex(uid)
                buckets[key[-1] % _BUCKETS].write(_RECORD.pack(key, position))
        found = [_later(np.fromfile(path, _FIELDS)) for path in paths]
    return np.sort(np.concatenate(found))


def _later(rows: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    rows = rows[np.lexsort((rows["position"], rows["low"], rows["high"]))]
    same = (rows["low"][1:] == rows["low"][:-1]) & (rows["high"][1:] == rows["high"][:-1])
    later: npt.NDArray[np.uint64] = rows["position"][1:][same]
    return later
