"""The raw rows of the pairs that the filter kept, shard by shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import BadInput
from pipelines.lake import manifest

KEPT_FILE = "kept.parquet"


def count(filtered_pairs: Path) -> int:
    """How many pairs the filter kept."""
    return pq.read_metadata(manifest.file(filtered_pairs, KEPT_FILE)).num_rows


def read(raw_pairs: Path, filtered_pairs: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """`columns` (`uid` among them) of the kept rows of each raw shard, in the shards' order.

    Memory holds a shard, and 32 bytes per kept pair.

    Raises:
        BadInput: a kept pair is not among the raw ones.
    """
    kept = uids(filtered_pairs)
    found = 0
    for path in _pair_files(raw_pairs):
        try:
            rows = pq.read_table(path, columns=list(columns))
        except (pa.ArrowInvalid, OSError) as error:
            raise BadInput(
                f"this parquet file cannot be read: {error}",
                where=path,
                remedy="run the download stage again",
            ) from error
        inside = among(kept, rows["uid"])
        found += int(inside.sum())
        yield rows.filter(pa.array(inside))
    if found != len(kept):
        raise BadInput(
            f"the filter kept {len(kept)} pairs, of which {found} are among the raw pairs",
            where=filtered_pairs,
            remedy="run the score and filter stages again, on these raw pairs",
        )


def uids(filtered_pairs: Path) -> npt.NDArray[np.bytes_]:
    """The kept uids, sorted: read batch by batch, for as Python's strings all of them would take three times the memory."""
    with pq.ParquetFile(manifest.file(filtered_pairs, KEPT_FILE)) as file:
        kept = np.empty(file.metadata.num_rows, dtype="S32")
        at = 0
        for batch in file.iter_batches(columns=["uid"]):
            kept[at : at + len(batch)] = batch["uid"].to_numpy(zero_copy_only=False).astype("S32")
            at += len(batch)
    kept.sort()
    return kept


def among(kept: npt.NDArray[np.bytes_], of_rows: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Which of some rows' uids are among the kept ones, which are sorted."""
    asked = np.asarray(of_rows.to_numpy(zero_copy_only=False)).astype("S32")
    places = np.searchsorted(kept, asked)
    inside: npt.NDArray[np.bool_] = places < len(kept)
    inside[inside] = kept[places[inside]] == asked[inside]
    return inside


def _pair_files(raw_pairs: Path) -> list[Path]:
    return [path for path in manifest.files(raw_pairs, ".parquet") if path.name.startswith("pairs-")]
