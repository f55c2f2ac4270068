"""How many pairs came and were kept by domain, resolution, language and caption length; in bounded memory."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.filter.rules import Rows
from pipelines.filter.screening import database

SIDES = (64, 128, 256, 384, 512, 1024)
LENGTHS = (10, 20, 40, 80, 160)
TOP = 15
"""Domains and languages that metrics and pictures show; the file has all."""

STATISTICS = pa.schema([
    ("dimension", pa.string()), ("value", pa.string()), ("rows", pa.int64()), ("kept", pa.int64()),
    ("place", pa.int32()),
])  # fmt: skip
"""`place`: of a bucket among those of its dimension, which have an order; null for the others."""
NOT_TOLD = "not told"


def bucket_names(edges: tuple[int, ...]) -> list[str]:
    """`<64`, `64-127`, ..., `>=1024`."""
    between = [f"{low}-{high - 1}" for low, high in pairwise(edges)]
    return [f"<{edges[0]}", *between, f">={edges[-1]}"]


class Statistics:
    """Counts of the shards, each written to scratch as it comes."""

    def __init__(self, scratch: Path) -> None:
        self._folder = scratch / "statistics"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._parts: list[str] = []

    @staticmethod
    def count(rows: Rows, kept: Any) -> pa.Table:
        """A shard's counts, of whose rows `kept` flags those that are kept."""
        side = pc.min_element_wise(rows.raw["width"], rows.raw["height"])
        told = rows.raw["language"] if rows.facts is None else rows.facts["language"]
        return pa.concat_tables(
            [
                _count("domain", rows.domain, kept),
                _count("language", told, kept),
                _buckets("shorter side", side, SIDES, kept),
                _buckets("characters", pc.utf8_length(rows.raw["caption"]), LENGTHS, kept),
            ]
        )

    def add(self, counts: pa.Table) -> None:
        """Take a shard's counts."""
        path = self._folder / f"{len(self._parts)}.parquet"
        pq.write_table(counts, path)
        self._parts.append(str(path))

    def write(self, path: Path) -> dict[str, list[dict[str, Any]]]:
        """Write the whole table; return, by dimension, all buckets or the most frequent values."""
        with database(self._folder) as connection:
            if not self._parts:
                pq.write_table(STATISTICS.empty_table(), path)
                return {}
            connection.execute(
                "CREATE VIEW counted AS SELECT dimension, value, sum(rows)::BIGINT AS rows, "
                "sum(kept)::BIGINT AS kept, any_value(place) AS place FROM read_parquet($parts) "
                "GROUP BY dimension, value".replace("$parts", str(self._parts))
            )
            order = "ORDER BY dimension, place, rows DESC, value"
            counted: Any = connection.sql(f"SELECT * FROM counted {order}").to_arrow_reader(100_000)  # noqa: S608
            with pq.ParquetWriter(path, STATISTICS) as writer:
                for batch in counted:
                    writer.write_table(pa.Table.from_batches([batch]).cast(STATISTICS))
            shown: Any = connection.sql(
                f"SELECT * FROM counted QUALIFY row_number() OVER "  # noqa: S608
                f"(PARTITION BY dimension ORDER BY place, rows DESC, value) <= {TOP} {order}"
            ).to_arrow_table()
        found: dict[str, list[dict[str, Any]]] = {}
        for row in shown.to_pylist():
            entry = {"value": row["value"], "rows": row["rows"], "kept": row["kept"]}
            found.setdefault(row["dimension"], []).append(entry)
        return found


def _count(dimension: str, values: Any, kept: Any, places: bool = False) -> pa.Table:
    table = pa.table({"value": pc.fill_null(values, NOT_TOLD), "kept": pc.cast(kept, pa.int64())})
    counted = table.group_by("value").aggregate([("kept", "sum"), ("kept", "count")])
    return pa.table(
        {
            "dimension": pa.array([dimension] * counted.num_rows, pa.string()),
            "value": counted["value"],
            "rows": counted["kept_count"],
            "kept": counted["kept_sum"],
            "place": pa.nulls(counted.num_rows, pa.int32()),
        },
        STATISTICS,
    )


def _buckets(dimension: str, numbers: Any, edges: tuple[int, ...], kept: Any) -> pa.Table:
    """Counts by the bucket that each number falls into."""
    place: Any = pa.array([0] * len(numbers), pa.int32())
    for edge in edges:
        place = pc.add(place, pc.cast(pc.greater_equal(pc.fill_null(numbers, 0), edge), pa.int32()))
    table = pa.table({"place": place, "kept": pc.cast(kept, pa.int64())})
    counted = table.group_by("place").aggregate([("kept", "sum"), ("kept", "count")])
    names = bucket_names(edges)
    return pa.table(
        {
            "dimension": pa.array([dimension] * counted.num_rows, pa.string()),
            "value": [names[number] for number in counted["place"].to_pylist()],
            "rows": counted["kept_count"],
            "kept": counted["kept_sum"],
            "place": counted["place"],
        },
        STATISTICS,
    )
