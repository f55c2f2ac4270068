"""The filter stage: a query over the scores, shard by shard; no image and no model is touched.

Memory holds the columns of one shard, besides the sha256 of placeholder images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import BadInput
from pipelines.filter import picture, rules
from pipelines.filter.spec import HISTOGRAM_FILE, THUMBNAIL_FILE, FilterSpec
from pipelines.lake import manifest
from pipelines.lake.ledger import Ledger
from pipelines.progress import Progress
from pipelines.score.distribution import Distribution, Scores
from pipelines.stage import Outcome, Work

KEPT_FILE, DROPPED_FILE = "kept.parquet", "dropped.parquet"
MARGIN = 0.001
"""A score this near to the threshold may fall on its other side with another implementation or precision."""
BINS = 80


def run(spec: FilterSpec, work: Work, progress: Progress) -> Outcome:
    """Write kept.parquet, dropped.parquet and the histogram."""
    _check_same_pairs(spec)
    shards = _files(spec.raw_pairs, "pairs-")
    distribution = Distribution()
    near = above = kept = 0
    reasons: Counter[str] = Counter()
    threshold = np.float32(spec.parameters.threshold)
    progress.start("filtering", len(shards), unit="shard")
    common = rules.placeholders(
        list(shards.values()), spec.parameters.most_pairs_per_image, work.folder / "scratch"
    )
    with (
        pq.ParquetWriter(work.out / KEPT_FILE, rules.KEPT) as kept_file,
        pq.ParquetWriter(work.out / DROPPED_FILE, rules.DROPPED) as dropped_file,
    ):
        for decision, scores in _decisions(spec, shards, common):
            kept_file.write_table(decision.kept)
            dropped_file.write_table(decision.dropped)
            distribution.add(scores)
            near += int((np.abs(scores - threshold) <= MARGIN).sum())
            above += int((scores > threshold).sum())
            kept += decision.kept.num_rows
            reasons.update(decision.dropped["reason"].to_pylist())
            progress.advance(1, keep_rate=kept / max(1, kept + reasons.total()))
    edges, counts = distribution.histogram(BINS)
    picture.write(
        edges,
        counts,
        threshold=spec.parameters.threshold,
        kept_share=above / max(1, distribution.size),
        full=work.out / HISTOGRAM_FILE,
        thumbnail=work.out / THUMBNAIL_FILE,
    )
    ledger = Ledger(rows_in=kept + reasons.total(), kept=kept, dropped=dict(sorted(reasons.items())))
    return Outcome(
        ledger=ledger,
        metrics={
            "threshold": spec.parameters.threshold,
            "keep_rate": round(ledger.keep_rate, 4),
            "scored": distribution.size,
            "above_threshold": above,
            f"within_{MARGIN:g}_of_threshold": near,
            "placeholder_images": len(common),
            "mean_score": distribution.mean,
            "quantiles": distribution.quantiles(),
            "histogram": {"edges": edges, "counts": counts},
        },
        rows={KEPT_FILE: kept, DROPPED_FILE: reasons.total()},
    )


def _check_same_pairs(spec: FilterSpec) -> None:
    scored = manifest.read(spec.clip_scores).inputs.get("raw_pairs")
    if scored != manifest.read(spec.raw_pairs).data_version:
        raise BadInput(
            "these scores were made from another version of the raw pairs",
            where=spec.clip_scores,
            remedy="run the score stage again",
        )


def _files(table: Path, prefix: str) -> dict[str, Path]:
    """The table's files of one kind by shard number, in the table's order."""
    return {
        path.stem.removeprefix(prefix): path
        for path in manifest.files(table, ".parquet")
        if path.name.startswith(prefix)
    }


def _decisions(
    spec: FilterSpec, shards: dict[str, Path], common: dict[str, int]
) -> Iterator[tuple[rules.Decision, Scores]]:
    """The decision and the scores of each shard."""
    scores, lost = _files(spec.clip_scores, "scores-"), _files(spec.clip_scores, "dropped-")
    for number, path in shards.items():
        scored = _read(scores.get(number), rules.KEPT)
        decision = rules.decide(
            _read(path, _RAW), scored, _read(lost.get(number), _LOST), common, spec.parameters
        )
        yield decision, scored["score"].to_numpy()


_RAW = pa.schema([("uid", pa.string()), ("image_sha256", pa.string())])
_LOST = pa.schema([(name, pa.string()) for name in ("uid", "reason", "detail")])


def _read(path: Path | None, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`; no rows where the shard has no such file."""
    if path is None:
        return schema.empty_table()
    try:
        return pq.read_table(path, columns=schema.names).cast(schema)
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        raise BadInput(
            f"this parquet file is missing, truncated or damaged: {error}",
            where=path,
            remedy="run the stage that made this table again: it notices the damage and makes it anew",
        ) from error
