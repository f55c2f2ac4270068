"""Filtering a million scored pairs again at another threshold: seconds, and peak memory.

Tables of the download, scoring and facts stages are made up: URLs of a few thousand domains, captions, sizes, scores
as a crawl has them, a placeholder under many pairs, languages, one pair in fifty in a group of near-duplicates. Images
are not there, and the filter reads none but its sample's.

    OMP_NUM_THREADS=2 python -m perf.refilter --rows 1000000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.download.writer import PAIRS
from pipelines.facts.run import FACTS
from pipelines.filter.spec import STAGE, FilterParameters, FilterSpec
from pipelines.lake import manifest
from pipelines.score.run import SCORES
from pipelines.stage import execute
from tests import tables

WORDS = ("a", "red", "small", "photo", "of", "dog", "house", "tree", "with", "on", "the", "summer", "sale")


def make(folder: Path, rows: int, rows_per_shard: int) -> None:
    """The tables raw_pairs, clip_scores and pair_facts."""
    generator = np.random.default_rng(0)
    raw, scores, facts = (folder / name for name in ("raw_pairs", "clip_scores", "pair_facts"))
    shards = range(0, rows, rows_per_shard)

    def uids(start: int, count: int) -> list[str]:
        return [
            bytes(row).hex() for row in np.random.default_rng(start).integers(0, 256, (count, 16), np.uint8)
        ]

    def write_raw(out: Path) -> None:
        for number, start in enumerate(shards):
            count = min(rows_per_shard, rows - start)
            domain = generator.zipf(1.4, count) % 5000
            picked = generator.integers(0, len(WORDS), (count, 12))
            length = generator.integers(3, 13, count)
            names = uids(start, count)
            columns = {
                "uid": names,
                "url": [
                    f"https://img{one}.example.org/{start + place}.jpg" for place, one in enumerate(domain)
                ],
                "caption": [
                    " ".join(WORDS[word] for word in row[:size])
                    for row, size in zip(picked, length, strict=True)
                ],
                "language": ["en"] * count,
                "shard": [f"shard-{number:05d}.tar"] * count,
                "offset": [512] * count,
                "length": [40_000] * count,
                "width": generator.integers(100, 1500, count),
                "height": generator.integers(100, 1500, count),
                "image_sha256": [
                    "0" * 64 if place % 100 == 0 else name * 2 for place, name in enumerate(names)
                ],
            }
            table = pa.table({name: columns[name] for name in PAIRS.names}, PAIRS)
            pq.write_table(table, out / f"pairs-{number:05d}.parquet")

    def write_scores(out: Path) -> None:
        for number, start in enumerate(shards):
            count = min(rows_per_shard, rows - start)
            columns = {
                "uid": uids(start, count),
                "score": generator.normal(0.2, 0.08, count).clip(-1, 1).astype(np.float32),
                "perceptual_hash": generator.integers(0, 2**64, count, np.uint64),
            }
            pq.write_table(pa.table(columns, SCORES), out / f"scores-{number:05d}.parquet")

    def write_facts(out: Path) -> None:
        for number, start in enumerate(shards):
            count = min(rows_per_shard, rows - start)
            group = generator.integers(0, max(1, rows // 100), count)
            columns = {
                "uid": uids(start, count),
                "language": np.where(generator.random(count) < 0.9, "en", "zh").tolist(),
                "language_confidence": generator.uniform(0.3, 1, count).astype(np.float32),
                "characters": generator.integers(3, 90, count, np.int32),
                "repeated": generator.uniform(0, 0.5, count).astype(np.float32),
                "cut": generator.random(count) < 0.01,
                "hash_group": [
                    int(one) if drawn < 0.02 else None
                    for one, drawn in zip(group, generator.random(count), strict=True)
                ],
                "cosine_group": [None] * count,
                "benchmark_image": [None] * count,
                "benchmark_text": [None] * count,
            }
            pq.write_table(pa.table(columns, FACTS), out / f"facts-{number:05d}.parquet")

    for table, write in ((raw, write_raw), (scores, write_scores), (facts, write_facts)):
        tables.publish(table, write)
        if table is not raw:
            versions = {"raw_pairs": manifest.read(raw).data_version}
            manifest.write(table, manifest.read(table).model_copy(update={"inputs": versions}))


def refilter(folder: Path, threshold: float) -> None:
    """One run, in a process of its own: its seconds and its peak memory are the filter's alone."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    made = execute(
        STAGE,
        FilterSpec(
            raw_pairs=folder / "raw_pairs", clip_scores=folder / "clip_scores", pair_facts=folder / "pair_facts",
            output=folder / "filtered_pairs", parameters=FilterParameters(threshold=threshold),
        ),
    )  # fmt: skip
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert made.ledger is not None and made.ledger.balanced
    print(
        json.dumps(
            {
                "threshold": threshold, "rows": made.ledger.rows_in, "kept": made.ledger.kept,
                "dropped": dict(made.ledger.dropped),
                "seconds": round(seconds, 2), "cpu_seconds": round(time.process_time(), 2),
                "peak_mib": round(after / 1024), "mib_before": round(before / 1024),
            }
        )
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m perf.refilter",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rows-per-shard", type=int, default=10_000, help="as the download stage's default")
    parser.add_argument("--refilter", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threshold", type=float, default=0.18, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.refilter is not None:
        refilter(given.refilter, given.threshold)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, given.rows, given.rows_per_shard)
        for threshold in (0.18, 0.2, 0.22):
            command = [
                sys.executable,
                "-m",
                "perf.refilter",
                "--refilter",
                name,
                "--threshold",
                str(threshold),
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(done.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
