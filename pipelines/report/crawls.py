"""A crawl in the report: its ledgers, its scores, the filter against the truth, samples of its translations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import BadInput
from pipelines.filter.drift import points
from pipelines.filter.quality import against_truth, uid_of
from pipelines.filter.run import MARGIN
from pipelines.filter.spec import GALLERY_FILE
from pipelines.lake import manifest
from pipelines.report.results import (
    Crawl,
    DriftPoint,
    Fault,
    Histogram,
    PairSample,
    Quality,
    Sample,
    Step,
)
from pipelines.report.spec import ReportSpec

BINS = 60
LEDGERS = ("raw_pairs", "clip_scores", "filtered_pairs", "translations", "training_shards")
"""The spec's fields whose tables have ledgers, in the order in which rows go through them."""

WORK_RATES = ("images_per_second", "pairs_per_second", "sentences_per_second")
"""Metrics in which stages tell how fast they worked, without start and accounting."""


def crawls(spec: ReportSpec) -> dict[str, Crawl]:
    """Every crawl that the report was given a table of."""
    names = {name: None for field in LEDGERS for name in getattr(spec, field)}
    return {name: _crawl(spec, name) for name in names}


def _crawl(spec: ReportSpec, name: str) -> Crawl:
    truth = _read_truth(spec.truth[name]) if name in spec.truth else None
    filtered = spec.filtered_pairs.get(name)
    samples = {}
    if name in spec.translations and name in spec.raw_pairs:
        samples = _samples(spec.raw_pairs[name], spec.translations[name], spec.parameters.translation_samples)
    histogram = None
    if name in spec.clip_scores:
        threshold = None if filtered is None else _threshold(filtered)
        histogram = _histogram(spec.clip_scores[name], truth, threshold)
    quality = None
    if truth is not None and filtered is not None and name in spec.raw_pairs:
        quality = _quality(spec.raw_pairs[name], filtered, truth)
    metrics = {} if filtered is None else manifest.read(filtered).metrics
    return Crawl(
        steps=_steps(spec, name),
        histogram=histogram,
        quality=quality,
        near_threshold=metrics.get(f"within_{MARGIN:g}_of_threshold"),
        statistics=metrics.get("statistics", {}),
        pairs=[] if filtered is None else _pairs(filtered),
        samples=samples,
    )


def drift(spec: ReportSpec) -> dict[str, list[DriftPoint]]:
    """Keep rate and scores over the crawls of each source that has several."""
    sources, tables = spec.parameters.sources, spec.filtered_pairs
    found = {}
    for source in sorted({sources.get(name, "") for name in tables} - {""}):
        of_source = {name: table for name, table in tables.items() if sources.get(name) == source}
        if len(of_source) > 1:
            reach = points(of_source, spec.parameters.keep_rate_drift)
            found[source] = [DriftPoint(**vars(point)) for point in reach]
    return found


def thumbnails(spec: ReportSpec) -> dict[str, bytes]:
    """uid -> JPEG of the sampled pairs whose image there is."""
    return {
        row["uid"]: row["thumbnail"]
        for table in spec.filtered_pairs.values()
        for row in _gallery_rows(table, ["uid", "thumbnail"])
        if row["thumbnail"] is not None
    }


def _pairs(filtered: Path) -> list[PairSample]:
    fields = list(PairSample.model_fields)
    return [
        PairSample(**row | {"score": None if row["score"] is None else round(row["score"], 4)})
        for row in _gallery_rows(filtered, fields)
    ]


def _gallery_rows(filtered: Path, columns: list[str]) -> list[dict[str, Any]]:
    """None where the table was made by a filter that sampled nothing."""
    return [
        row
        for path in manifest.files(filtered, GALLERY_FILE)
        for row in pq.read_table(path, columns=columns).to_pylist()
    ]


def _steps(spec: ReportSpec, name: str) -> list[Step]:
    steps = []
    for field in LEDGERS:
        tables = getattr(spec, field)
        if name in tables and (ledger := manifest.read(tables[name]).ledger) is not None:
            made = manifest.read(tables[name])
            rates = {rate: value for rate in WORK_RATES if (value := made.metrics.get(rate))}
            steps.append(Step(stage=field, seconds=made.seconds, work_rates=rates, **ledger.model_dump()))
    return steps


def _threshold(filtered: Path) -> float:
    made = manifest.read(filtered)
    threshold: float = made.parameters["parameters"]["threshold"]
    return threshold


def _read_truth(path: Path) -> pa.Table:
    """The truth with a column of uids, as the download stage gives them.

    Raises:
        BadInput: the file has other columns.
    """
    table = pq.read_table(path)
    if missing := {"url", "caption", "fault", "is_good"} - set(table.schema.names):
        raise BadInput(
            f"the columns {', '.join(sorted(missing))} are missing",
            where=path,
            remedy="give the truth.parquet of a crawl that the world stage made",
        )
    uids = [
        uid_of(url, caption)
        for url, caption in zip(table["url"].to_pylist(), table["caption"].to_pylist(), strict=True)
    ]
    return table.append_column("uid", pa.array(uids, pa.string()))


def _batches(files: list[Path], columns: list[str]) -> Iterator[dict[str, list[Any]]]:
    """The columns of parquet files, a row group at a time."""
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(columns=columns):
            yield batch.to_pydict()


def _shards(table: Path, prefix: str) -> list[Path]:
    return [path for path in manifest.files(table, ".parquet") if path.name.startswith(prefix)]


def _histogram(scores: Path, truth: pa.Table | None, threshold: float | None) -> Histogram:
    """Equal bins over the range of the scores, which is found in a first pass."""
    files = _shards(scores, "scores-")
    good_uids = set() if truth is None else set(truth.filter(truth["is_good"])["uid"].to_pylist())
    low, high = np.inf, -np.inf
    for batch in _batches(files, ["score"]):
        if batch["score"]:
            low, high = min(low, min(batch["score"])), max(high, max(batch["score"]))
    edges = np.linspace(*((low, high) if low < high else (0.0, 1.0)), BINS + 1)
    counts, good = np.zeros(BINS, dtype=np.int64), np.zeros(BINS, dtype=np.int64)
    for batch in _batches(files, ["uid", "score"]):
        counts += np.histogram(batch["score"], edges)[0]
        if truth is not None:
            pairs = zip(batch["uid"], batch["score"], strict=True)
            good += np.histogram([score for uid, score in pairs if uid in good_uids], edges)[0]
    return Histogram(
        edges=[round(float(edge), 5) for edge in edges],
        counts=counts.tolist(),
        good=None if truth is None else good.tolist(),
        threshold=threshold,
    )


def _quality(raw: Path, filtered: Path, truth: pa.Table) -> Quality:
    """The filter's precision and recall, and what became of each fault."""
    downloaded = {uid for batch in _batches(_shards(raw, "pairs-"), ["uid"]) for uid in batch["uid"]}
    kept_table = pq.read_table(manifest.file(filtered, "kept.parquet"), columns=["uid"])
    quality = against_truth(kept_table, truth, given=downloaded)
    kept = set(kept_table["uid"].to_pylist())
    counts: dict[tuple[str, bool], list[int]] = {}
    for row in truth.select(["uid", "fault", "is_good"]).to_pylist():
        count = counts.setdefault((row["fault"], row["is_good"]), [0, 0, 0])
        count[0] += 1
        count[1] += row["uid"] in downloaded
        count[2] += row["uid"] in kept
    return Quality(
        precision=quality.precision,
        recall=quality.recall,
        faults=[
            Fault(fault=fault, is_good=good, rows=rows, downloaded=arrived, kept=passed)
            for (fault, good), (rows, arrived, passed) in sorted(counts.items(), key=lambda item: -item[1][0])
        ],
    )


def _samples(raw: Path, translations: Path, count: int) -> dict[str, list[Sample]]:
    """The translated captions with the lowest uids, one per source text: a choice that no one made."""
    samples: dict[str, list[Sample]] = {}
    for file in manifest.files(translations, ".parquet"):
        if file.name == "dropped.parquet":
            continue
        first: dict[str, str] = {}
        for batch in _batches([file], ["uid", "text"]):
            first.update(zip(batch["uid"], batch["text"], strict=True))
            first = dict(sorted(first.items())[: 3 * count])
        sources = {
            uid: caption
            for batch in _batches(_shards(raw, "pairs-"), ["uid", "caption"])
            for uid, caption in zip(batch["uid"], batch["caption"], strict=True)
            if uid in first
        }
        by_source = {sources[uid]: text for uid, text in first.items() if uid in sources}
        samples[file.stem] = [Sample(source=one, text=text) for one, text in by_source.items()][:count]
    return samples
