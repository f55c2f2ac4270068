"""What becomes of each pair: kept, or dropped for the first of these reasons that holds.

1. what the scoring stage dropped it for;
2. `score_missing`: the scores say nothing about it;
3. `placeholder_image`: its image file stands under too many pairs, as a server's default image does;
4. `score_below_threshold`: its score is not greater than the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.filter.spec import FilterParameters

SCORE_MISSING, PLACEHOLDER, BELOW = "score_missing", "placeholder_image", "score_below_threshold"

KEPT = pa.schema([("uid", pa.string()), ("score", pa.float32())])
DROPPED = pa.schema(
    [("uid", pa.string()), ("score", pa.float32()), ("reason", pa.string()), ("detail", pa.string())]
)
_MEMORY_LIMIT = "1GB"


@dataclass(frozen=True)
class Decision:
    """The rows of one shard, parted."""

    kept: pa.Table
    dropped: pa.Table


def placeholders(shards: Sequence[Path], most_pairs: int | None, scratch: Path) -> dict[str, int]:
    """sha256 -> pairs, of each image file that stands under more than `most_pairs` pairs.

    Counted over all shards in bounded memory: what does not fit goes to `scratch`.
    """
    if most_pairs is None or not shards:
        return {}
    scratch.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(config={"memory_limit": _MEMORY_LIMIT, "temp_directory": str(scratch)}) as database:
        found = database.execute(
            "SELECT image_sha256, count(*) AS pairs FROM read_parquet(?) "
            "GROUP BY image_sha256 HAVING count(*) > ? ORDER BY image_sha256",
            [[str(path) for path in shards], most_pairs],
        ).fetchall()
    return dict(found)


def decide(
    raw: pa.Table, scores: pa.Table, lost: pa.Table, common: dict[str, int], parameters: FilterParameters
) -> Decision:
    """Part one shard's rows.

    `raw` has uid and image_sha256, `scores` uid and score, `lost` uid, reason and detail: what scoring dropped.
    """
    places = pc.index_in(raw["uid"], scores["uid"])
    score = pc.take(scores["score"], places)
    lost_places = pc.index_in(raw["uid"], lost["uid"])
    images = pa.array(common.keys(), pa.string())
    image_places = pc.index_in(raw["image_sha256"], images)
    image_pairs = pc.take(pa.array(common.values(), pa.int64()), image_places)

    # Compared as float32, as the scores are stored: a score of exactly the threshold is not greater.
    above = pc.greater(score, pa.scalar(parameters.threshold, pa.float32()))
    none = pa.scalar(None, pa.string())
    reason = pc.if_else(above, none, BELOW)
    reason = pc.if_else(pc.is_valid(image_places), PLACEHOLDER, reason)
    reason = pc.if_else(pc.is_null(score), SCORE_MISSING, reason)
    reason = pc.coalesce(pc.take(lost["reason"], lost_places), reason)
    many = pc.binary_join_element_wise("stands under ", pc.cast(image_pairs, pa.string()), " pairs", "")
    detail = pc.if_else(pc.equal(reason, PLACEHOLDER), many, "")
    detail = pc.coalesce(pc.take(lost["detail"], lost_places), detail)

    table = pa.table([raw["uid"], score, reason, detail], schema=DROPPED)
    keep = pc.is_null(table["reason"])
    return Decision(kept=table.filter(keep).select(KEPT.names), dropped=table.filter(pc.invert(keep)))
