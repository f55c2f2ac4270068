"""The filter stage: a query over the scores and facts, shard by shard; no model is touched.

Memory holds the columns of a shard or two per core, besides what stands under too many pairs and what lists drop by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import BadInput
from pipelines.facts import talks
from pipelines.filter import duplicates, gallery, picture, rules
from pipelines.filter.rules import Common, Rows
from pipelines.filter.screening import Blocked, Nsfw, domains
from pipelines.filter.spec import (
    GALLERY_FILE,
    GALLERY_PICTURE,
    HISTOGRAM_FILE,
    STATISTICS_FILE,
    STATISTICS_PICTURE,
    THUMBNAIL_FILE,
    FilterSpec,
)
from pipelines.filter.statistics import Statistics
from pipelines.in_order import in_order
from pipelines.lake import manifest
from pipelines.lake.ledger import Ledger
from pipelines.progress import Progress
from pipelines.score.distribution import Distribution
from pipelines.stage import Outcome, Work

KEPT_FILE, DROPPED_FILE = "kept.parquet", "dropped.parquet"
MARGIN = 0.001
"""A score this near to the threshold may fall on its other side with another implementation or precision."""
BINS = 80
UNDECODABLE = "undecodable_image"

RAW = pa.schema([
    ("uid", pa.string()), ("url", pa.string()), ("caption", pa.string()), ("language", pa.string()),
    ("shard", pa.string()), ("offset", pa.int64()), ("length", pa.int64()),
    ("width", pa.int32()), ("height", pa.int32()), ("image_sha256", pa.string()),
])  # fmt: skip
_LOST = pa.schema([(name, pa.string()) for name in ("uid", "reason", "detail")])
_FACTS = pa.schema([
    ("uid", pa.string()), ("language", pa.string()), ("language_confidence", pa.float32()),
    ("repeated", pa.float32()), ("cut", pa.bool_()), ("hash_group", pa.int64()), ("cosine_group", pa.int64()),
    ("benchmark_image", pa.string()), ("benchmark_text", pa.string()),
])  # fmt: skip


def run(spec: FilterSpec, work: Work, progress: Progress) -> Outcome:
    """Write kept.parquet, dropped.parquet, the statistics, the gallery and the pictures.

    Raises:
        BadInput: a table belongs to other raw pairs or is damaged, or a list is malformed.
    """
    talks.check_scores(spec.raw_pairs, spec.clip_scores)
    _check_same_pairs(spec)
    return _Filtering(spec, work, progress).run()


class _Decided(NamedTuple):
    """What became of a shard's rows: columns in their order."""

    rows: Rows
    reason: Any
    """Null: kept."""
    detail: Any
    keep: Any
    counts: pa.Table
    """See `statistics.STATISTICS`."""


class _Filtering:
    """One run: what is counted as the shards go by."""

    def __init__(self, spec: FilterSpec, work: Work, progress: Progress) -> None:
        self.spec, self.work, self.progress = spec, work, progress
        self.parameters = spec.parameters
        self.scratch = work.folder / "scratch"
        self.talks = spec.clip_scores is None
        self.shards = talks.files(spec.raw_pairs) if self.talks else _files(spec.raw_pairs, "pairs-")
        self.scores = _of_shards(spec.clip_scores, "scores-")
        self.lost = _of_shards(spec.clip_scores, "dropped-")
        self.facts = _of_shards(spec.pair_facts, "facts-")
        self.hashes = _of_shards(spec.pair_facts if self.talks else None, talks.HASHES)
        self.distribution = Distribution()
        self.near = self.above = self.kept = self.without_image = 0
        self.reasons: Counter[str] = Counter()
        self.statistics = Statistics(self.scratch)
        self.sampler = gallery.Sampler(self.parameters.threshold)

    def run(self) -> Outcome:
        """Two passes where near-duplicates are dropped, else one."""
        files = list(self.shards.values())
        self.progress.start("filtering", len(files), unit="shard")
        common = Common({}, {}) if self.talks else self._common(files)
        blocked = Blocked.read(self.spec)
        if self.talks and len(blocked.hashes) and self.spec.pair_facts is None:
            raise BadInput(
                "perceptual hashes are blocked, and those of the conversations' images are not known",
                where="pair_facts",
                remedy="name the crawl's table of facts, which holds them",
            )
        nsfw = Nsfw.read(self.spec, files, self.scratch)
        losers = self._losers(common, blocked, nsfw)
        with (
            pq.ParquetWriter(self.work.out / KEPT_FILE, rules.KEPT) as kept_file,
            pq.ParquetWriter(self.work.out / DROPPED_FILE, rules.DROPPED) as dropped_file,
        ):

            def decide(number: str) -> _Decided:
                rows = self._rows(number, with_hashes=bool(len(blocked.hashes)))
                reason, detail = rules.decide(rows, common, blocked, nsfw, self.parameters)
                for column, uids in losers.items():
                    lost = pc.and_(pc.is_null(reason), pc.is_in(rows.raw["uid"], uids))
                    reason = pc.if_else(lost, duplicates.REASONS[column], reason)
                    detail = pc.if_else(lost, "", detail)
                keep = pc.is_null(reason)
                return _Decided(rows, reason, detail, keep, self.statistics.count(rows, keep))

            for one in in_order(decide, self.shards):
                columns = [one.rows.raw["uid"], one.rows.score, one.reason, one.detail]
                table = pa.table(columns, schema=rules.DROPPED)
                kept_file.write_table(table.filter(one.keep).select(rules.KEPT.names))
                dropped_file.write_table(table.filter(pc.invert(one.keep)))
                self._count(one)
        return self._outcome(common)

    def _common(self, files: list[Path]) -> Common:
        """What stands under too many pairs; an image may be the subject of any number of conversations."""
        most = self.parameters.most_urls_per_image, self.parameters.captions.most_pairs
        return Common(
            images=rules.too_common(files, "image_sha256", most[0], self.scratch),
            captions=rules.too_common(files, "caption", most[1], self.scratch),
        )

    def _losers(self, common: Common, blocked: Blocked, nsfw: Nsfw) -> dict[str, pa.Array]:
        """The uids of the near-duplicates that are dropped, by the kind of their group."""
        switched = {
            "hash_group": self.parameters.drop_hash_duplicates,
            "cosine_group": self.parameters.drop_cosine_duplicates,
        }
        columns = [name for name, is_on in switched.items() if is_on]
        if self.talks or self.spec.pair_facts is None or not columns or not self._has_groups():
            return {}

        def candidates(number: str) -> Path:
            rows = self._rows(number, with_hashes=bool(len(blocked.hashes)), only_grouped=True)
            assert rows.facts is not None  # noqa: S101  # the table is given
            reason, _ = rules.decide(rows, common, blocked, nsfw, self.parameters)
            groups = [rows.facts[name] for name in duplicates.GROUPS]
            columns = [rows.raw["uid"], rows.score, rows.raw["image_sha256"], *groups]
            table = pa.table(columns, schema=duplicates.CANDIDATES)
            path = self.scratch / f"candidates-{number}.parquet"
            pq.write_table(table.filter(pc.is_null(reason)), path)
            return path

        parts = list(in_order(candidates, self.shards))
        return duplicates.losers(parts, columns, self.scratch)

    def _has_groups(self) -> bool:
        """Whether near-duplicates were looked for, and some were found."""
        assert self.spec.pair_facts is not None  # noqa: S101
        metrics = manifest.read(self.spec.pair_facts).metrics
        return any(metrics.get(f"with_near_duplicates_by_{kind}", 1) for kind in ("hash", "embedding"))

    def _rows(self, number: str, *, with_hashes: bool, only_grouped: bool = False) -> Rows:
        """A shard's pairs or conversations with what is known of them; if asked, of those in a group of near-duplicates."""
        path = self.shards[number]
        raw = talks.read(path, RAW.names).cast(RAW) if self.talks else _read(path, RAW)
        facts = None if self.spec.pair_facts is None else _read(self.facts.get(number), _FACTS)
        if facts is not None and only_grouped:
            facts = facts.filter(pc.or_(*(pc.is_valid(facts[name]) for name in duplicates.GROUPS)))
            raw = raw.filter(pc.is_in(raw["uid"], facts["uid"]))
        scored, gone = self._scored(number, with_hashes=with_hashes)
        places, gone_places = pc.index_in(raw["uid"], scored["uid"]), pc.index_in(raw["uid"], gone["uid"])
        return Rows(
            raw=raw,
            score=_flat(pc.take(scored["score"], places)),
            lost_reason=_flat(pc.take(gone["reason"], gone_places)),
            lost_detail=_flat(pc.take(gone["detail"], gone_places)),
            perceptual_hash=pc.take(scored["perceptual_hash"], places) if with_hashes else None,
            facts=None if facts is None else facts.take(pc.index_in(raw["uid"], facts["uid"])),
            domain=_flat(domains(raw["url"])),
            talks=self.talks,
        )

    def _scored(self, number: str, *, with_hashes: bool) -> tuple[pa.Table, pa.Table]:
        """The scores of a shard, with the images' hashes where wanted, and what was lost before."""
        if self.spec.clip_scores is not None:
            schema = (
                rules.KEPT.append(pa.field("perceptual_hash", pa.uint64())) if with_hashes else rules.KEPT
            )
            return _read(self.scores.get(number), schema), _read(self.lost.get(number), _LOST)
        hashed = _read(self.hashes.get(number), talks.HASHES_SCHEMA)
        whole = pc.is_valid(hashed["perceptual_hash"])
        scored = hashed.filter(whole).select(["uid", "perceptual_hash"])
        lost = hashed.filter(pc.invert(whole))
        return (
            scored.append_column("score", pa.nulls(scored.num_rows, pa.float32())),
            pa.table([lost["uid"], [UNDECODABLE] * lost.num_rows, lost["failure"]], schema=_LOST),
        )

    def _count(self, one: _Decided) -> None:
        scores = one.rows.score.drop_null().to_numpy()
        threshold = np.float32(self.parameters.threshold)
        self.distribution.add(scores)
        self.near += int((np.abs(scores - threshold) <= MARGIN).sum())
        self.above += int((scores > threshold).sum())
        self.kept += int(pc.sum(one.keep).as_py() or 0)
        self.without_image += one.rows.raw["shard"].null_count
        for entry in pc.value_counts(one.reason.drop_null()).to_pylist():
            self.reasons[entry["values"]] += entry["counts"]
        self.statistics.add(one.counts)
        self.sampler.add(one.rows, one.reason, one.detail)
        self.progress.advance(1, keep_rate=self.kept / max(1, self.kept + self.reasons.total()))

    def _outcome(self, common: Common) -> Outcome:
        out = self.work.out
        of_scores = {} if self.talks else self._of_scores()
        shown = self.statistics.write(out / STATISTICS_FILE)
        ledger = Ledger(
            rows_in=self.kept + self.reasons.total(),
            kept=self.kept,
            dropped=dict(sorted(self.reasons.items())),
        )
        picture.write_statistics(ledger, shown, out / STATISTICS_PICTURE)
        sample = self.sampler.chosen()
        gallery.write(sample, self.spec.raw_pairs, out / GALLERY_FILE, out / GALLERY_PICTURE)
        return Outcome(
            ledger=ledger,
            metrics={
                "records": "conversations" if self.talks else "pairs",
                "keep_rate": round(ledger.keep_rate, 4),
                **({"without_image": self.without_image} if self.talks else {}),
                **({} if self.talks else {"placeholder_images": len(common.images)}),
                **of_scores,
                "statistics": shown,
            },
            rows={KEPT_FILE: self.kept, DROPPED_FILE: self.reasons.total()},
        )

    def _of_scores(self) -> dict[str, Any]:
        """The histogram of a crawl of pairs, drawn, and the figures of its scores."""
        out, threshold = self.work.out, self.parameters.threshold
        edges, counts = self.distribution.histogram(BINS)
        picture.write(
            edges, counts, threshold=threshold, kept_share=self.above / max(1, self.distribution.size),
            full=out / HISTOGRAM_FILE, thumbnail=out / THUMBNAIL_FILE,
        )  # fmt: skip
        return {
            "threshold": threshold,
            "scored": self.distribution.size,
            "above_threshold": self.above,
            f"within_{MARGIN:g}_of_threshold": self.near,
            "mean_score": self.distribution.mean,
            "quantiles": self.distribution.quantiles(),
            "histogram": {"edges": edges, "counts": counts},
        }


def _flat(values: Any) -> Any:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _check_same_pairs(spec: FilterSpec) -> None:
    version = manifest.read(spec.raw_pairs).data_version
    for table, stage in ((spec.clip_scores, "score"), (spec.pair_facts, "facts")):
        if table is not None and manifest.read(table).inputs.get("raw_pairs") != version:
            raise BadInput(
                f"this table of the {stage} stage was made from another version of the raw pairs",
                where=table,
                remedy=f"run the {stage} stage again",
            )


def _of_shards(table: Path | None, prefix: str) -> Mapping[str, Path]:
    return {} if table is None else _files(table, prefix)


def _files(table: Path, prefix: str) -> dict[str, Path]:
    """The table's files of one kind by shard number, in the table's order."""
    return {
        path.stem.removeprefix(prefix): path
        for path in manifest.files(table, ".parquet")
        if path.name.startswith(prefix)
    }


def _read(path: Path | None, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`; no rows where the shard has no such file."""
    if path is None:
        return schema.empty_table()
    try:
        return pq.read_table(path, columns=schema.names).cast(schema)
    except (pa.ArrowInvalid, OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"this parquet file is missing, truncated or damaged: {error}",
            where=path,
            remedy="run the stage that made this table again: it notices the damage and makes it anew",
        ) from error
