"""Near-duplicates: of each group of images that look alike, one image is kept, with its captions.

Which one depends on every other rule: the best-scoring of those that are left. So decisions are first written to
scratch, then the losers are found by a query in bounded memory, then each shard is read once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from pipelines.filter.screening import database, uids

GROUPS = ("hash_group", "cosine_group")
REASONS = {"hash_group": "near_duplicate_hash", "cosine_group": "near_duplicate_cosine"}
"""Column of the table of facts -> reason, in the order in which they are gone through."""

CANDIDATES = pa.schema([
    ("uid", pa.string()), ("score", pa.float32()), ("image_sha256", pa.string()),
    ("hash_group", pa.int64()), ("cosine_group", pa.int64()),
])  # fmt: skip
"""Pairs that every other rule keeps and that are in a group."""


def losers(candidates: Sequence[Path], columns: Sequence[str], scratch: Path) -> dict[str, pa.Array]:
    """Column -> the uids of the pairs whose image is not the one that its group keeps.

    Groups of the second column are gone through with what the first one left. Memory holds the uids found.
    """
    files = [str(path) for path in candidates]
    found: dict[str, pa.Array] = {}
    if not files:
        return found
    with database(scratch) as connection:
        connection.execute("CREATE TABLE gone (uid VARCHAR)")
        for column in columns:
            query = f"""
                WITH rest AS (
                    SELECT * FROM read_parquet(?) WHERE {column} IS NOT NULL AND uid NOT IN (SELECT uid FROM gone)
                ), best AS (
                    SELECT {column} AS number, arg_max(image_sha256, (score, uid)) AS image FROM rest GROUP BY 1
                )
                SELECT uid FROM rest JOIN best ON rest.{column} = best.number WHERE image_sha256 <> image
            """  # noqa: S608  # the column is one of two names
            found[column] = uids(connection, query, [files])
            connection.register("lost", pa.table({"uid": found[column]}))
            connection.execute("INSERT INTO gone SELECT uid FROM lost")
            connection.unregister("lost")
    return found
