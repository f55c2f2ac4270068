"""A crawl of any number of rows without its images: score tables, filter, ledger and plan, step by step.

Each step is a process of its own, whose wall time, CPU time, peak memory and disk are printed, so that a
step's memory is its own and nothing of the step before. Rates are per CPU second too: those hold on a machine on which
others work. Images are left out because they cost the same each, which the other scripts here measure.

    OMP_NUM_THREADS=1 python -m perf.scale --rows 1000000
    OMP_NUM_THREADS=1 python -m perf.scale --rows 10000000 --folder /data/scale --json scale.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.download.writer import PAIRS
from pipelines.filter.spec import STAGE as FILTER
from pipelines.filter.spec import FilterParameters, FilterSpec
from pipelines.fingerprint import why_not_reusable
from pipelines.lake import manifest
from pipelines.lake.identity import pair_uid
from pipelines.lake.ledger import Ledger
from pipelines.lake.takedown import Demands
from pipelines.progress import Progress
from pipelines.shard import plan
from pipelines.shard.spec import ShardParameters, ShardSpec
from pipelines.stage import InputTable, Outcome, Stage, StageSpec, Work, execute

# As in pipelines/score/run.py, which is not imported: it brings torch, and 900 MB to each step's memory.
SCORES = pa.schema([("uid", pa.string()), ("score", pa.float32()), ("perceptual_hash", pa.uint64())])
DROPPED = pa.schema([(name, pa.string()) for name in ("uid", "reason", "detail")])
ROWS_PER_SHARD = 10_000
DOMAINS = 20_000
WORDS = [
    "a",
    "red",
    "car",
    "on",
    "the",
    "street",
    "near",
    "old",
    "house",
    "with",
    "green",
    "garden",
    "and",
    "two",
    "children",
    "playing",
    "ball",
    "under",
    "blue",
    "sky",
    "while",
    "dog",
    "runs",
    "along",
    "river",
    "bank",
    "in",
    "morning",
    "light",
    "photo",
    "of",
    "market",
    "fruit",
    "stand",
    "city",
    "center",
]


class PairsSpec(StageSpec):
    rows: int


def make_pairs(spec: PairsSpec, work: Work, progress: Progress) -> Outcome:
    """Rows as the download stage leaves them: URLs of 20,000 domains, captions of 5 to 20 words, 1 % placeholders."""
    rng = np.random.default_rng(0)
    rows = {}
    shards = -(-spec.rows // ROWS_PER_SHARD)
    progress.start("making pairs", spec.rows)
    for shard in range(shards):
        size = min(ROWS_PER_SHARD, spec.rows - shard * ROWS_PER_SHARD)
        domains = (rng.zipf(1.3, size) % DOMAINS).tolist()
        lengths = rng.integers(5, 21, size).tolist()
        words = rng.integers(0, len(WORDS), (size, 20)).tolist()
        shared = rng.random(size) < 0.01
        urls, captions, uids, digests = [], [], [], []
        for row in range(size):
            urls.append(f"https://img{domains[row]}.example.org/{shard:05d}/{row:06d}.jpg")
            captions.append(" ".join(WORDS[word] for word in words[row][: lengths[row]]))
            uids.append(pair_uid(urls[-1], captions[-1]))
            digests.append(hashlib.sha256(b"placeholder" if shared[row] else uids[-1].encode()).hexdigest())
        sizes = rng.integers(20_000, 80_000, size)
        columns = {
            "uid": uids, "url": urls, "caption": captions, "language": ["en"] * size,
            "shard": [f"shard-{shard:05d}.tar"] * size, "offset": np.cumsum(sizes) - sizes, "length": sizes,
            "width": np.full(size, 256), "height": np.full(size, 256), "image_sha256": digests,
        }  # fmt: skip
        name = f"pairs-{shard:05d}.parquet"
        pq.write_table(pa.table({key: columns[key] for key in PAIRS.names}, schema=PAIRS), work.out / name)
        rows[name] = size
        progress.advance(size)
    return Outcome(ledger=Ledger(rows_in=spec.rows, kept=spec.rows), rows=rows)


class ScoresSpec(StageSpec):
    raw_pairs: InputTable


def make_scores(spec: ScoresSpec, work: Work, progress: Progress) -> Outcome:
    """Scores as Chinese-CLIP gives them to a crawl (mean 0.2); one row in a thousand could not be decoded."""
    rng = np.random.default_rng(1)
    rows, lost_rows = {}, 0
    files = [path for path in manifest.files(spec.raw_pairs, ".parquet") if path.name.startswith("pairs-")]
    progress.start("making scores", len(files), unit="shard")
    for path in files:
        uids = pq.read_table(path, columns=["uid"])["uid"].combine_chunks()
        lost = rng.random(len(uids)) < 0.001
        scores = rng.normal(0.2, 0.06, len(uids)).astype(np.float32)
        hashes = rng.integers(0, 1 << 63, len(uids), dtype=np.uint64)
        known = {"uid": uids, "score": pa.array(scores), "perceptual_hash": pa.array(hashes)}
        table = pa.table({name: known[name] for name in SCORES.names}).cast(SCORES)
        number = path.stem.removeprefix("pairs-")
        pq.write_table(table.filter(pa.array(~lost)), work.out / f"scores-{number}.parquet")
        gone = uids.filter(pa.array(lost))
        words = pa.array(["undecodable"] * len(gone), pa.string())
        pq.write_table(pa.table([gone, words, words], schema=DROPPED), work.out / f"dropped-{number}.parquet")
        rows[f"scores-{number}.parquet"] = len(uids) - len(gone)
        lost_rows += len(gone)
        progress.advance()
    kept = sum(rows.values())
    return Outcome(
        ledger=Ledger(rows_in=kept + lost_rows, kept=kept, dropped={"undecodable": lost_rows}), rows=rows
    )


PAIRS_STAGE = Stage("raw_pairs", "perf.scale", PairsSpec, "1", make_pairs, "Synthetic pairs.")
SCORES_STAGE = Stage("clip_scores", "perf.scale", ScoresSpec, "1", make_scores, "Synthetic scores.")


def filter_spec(folder: Path, name: str, threshold: float) -> FilterSpec:
    return FilterSpec(
        output=folder / name, raw_pairs=folder / "raw_pairs", clip_scores=folder / "clip_scores",
        parameters=FilterParameters(threshold=threshold),
    )  # fmt: skip


def filter_at(threshold: float, name: str) -> Callable[[Path, int], str]:
    def run(folder: Path, rows: int) -> str:
        ledger = execute(FILTER, filter_spec(folder, name, threshold)).ledger
        assert ledger is not None
        assert ledger.balanced
        assert ledger.rows_in == rows
        return f"kept {ledger.kept:,} at {threshold}; " + ", ".join(
            f"{k} {v:,}" for k, v in ledger.dropped.items()
        )

    return run


def query_ledger(folder: Path, rows: int) -> str:
    """Count the dropped rows again, by reason, from the rows themselves, and hold them against the ledger."""
    ledger = manifest.read(folder / "filtered_pairs").ledger
    assert ledger is not None
    found = duckdb.execute(
        "SELECT reason, count(*) FROM read_parquet(?) GROUP BY reason",
        [str(manifest.file(folder / "filtered_pairs", "dropped.parquet"))],
    ).fetchall()
    assert dict(found) == ledger.dropped
    return f"{sum(ledger.dropped.values()):,} dropped rows counted again: the ledger holds"


def verify(folder: Path, rows: int) -> str:
    """What a run that finds nothing to do costs: every file is held against its sha256."""
    made, why = why_not_reusable(FILTER, filter_spec(folder, "filtered_pairs", 0.18))
    assert made is not None, why
    return "reused: nothing changed"


def make_plan(folder: Path, rows: int) -> str:
    spec = ShardSpec(
        output=folder / "training_shards", raw_pairs=folder / "raw_pairs", filtered_pairs=folder / "filtered_pairs",
        parameters=ShardParameters(samples_per_shard=10_000),
    )  # fmt: skip
    (folder / "training_shards" / "out").mkdir(parents=True, exist_ok=True)
    made = plan.make(spec, folder / "training_shards", Progress("plan"))
    return f"{made.samples:,} samples in {made.shards:,} shards"


def read_plan(folder: Path, rows: int) -> str:
    """Read every sample of the plan in its order, as the workers that write the shards do."""
    record = json.loads((folder / "training_shards" / "parted.json").read_text())
    made = plan.Plan(folder / "training_shards", 10_000, tuple(record["bucket_rows"]), 0)
    read = sum(1 for shard in range(made.shards) for _ in made.read(shard * 10_000, (shard + 1) * 10_000))
    assert read == made.samples
    return f"{read:,} samples"


def find_domain(folder: Path, rows: int) -> str:
    """Find the rows of one domain, as a takedown does."""
    demands, found = Demands.of([], ["img7.example.org"]), 0
    for path in manifest.files(folder / "raw_pairs", ".parquet"):
        found += int(np.count_nonzero(demands.match(pq.read_table(path, columns=["url"])["url"]).to_numpy()))
    return f"{found:,} rows of one domain"


STEPS: dict[str, Callable[[Path, int], str]] = {
    "make pairs": lambda folder, rows: (
        f"{execute(PAIRS_STAGE, PairsSpec(output=folder / 'raw_pairs', rows=rows)).rows:,} rows"
    ),
    "make scores": lambda folder, rows: (
        f"{execute(SCORES_STAGE, ScoresSpec(output=folder / 'clip_scores', raw_pairs=folder / 'raw_pairs')).rows:,}"
    ),
    "filter": filter_at(0.18, "filtered_pairs"),
    "filter again": filter_at(0.2, "filtered_again"),
    "ledger": query_ledger,
    "nothing to do": verify,
    "plan": make_plan,
    "read the plan": read_plan,
    "find a domain": find_domain,
}


def measured(step: str, folder: Path, rows: int) -> dict[str, Any]:
    """Run a step in a process of its own."""
    before, started = _bytes(folder), time.monotonic()
    command = [
        sys.executable,
        "-m",
        "perf.scale",
        "--step",
        step,
        "--folder",
        str(folder),
        "--rows",
        str(rows),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PROGRESS_QUIET": "1"}
    )
    assert process.stdout is not None
    words = process.stdout.read().decode().strip()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{step} failed; run: {' '.join(command)}")
    return {
        "step": step, "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1), "memory_mb": usage.ru_maxrss // 1024,
        "disk_mb": (_bytes(folder) - before) >> 20, "said": words,
    }  # fmt: skip


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="kept if given; else a temporary folder")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(STEPS[arguments.step](arguments.folder, arguments.rows))
        return
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="scale-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(
        f"{arguments.rows:,} rows in {folder}\n{'step':15}{'wall s':>9}{'CPU s':>9}{'memory MB':>11}{'disk MB':>9}{'rows/CPU s':>12}"
    )
    figures = []
    try:
        for step in STEPS:
            figures.append(measured(step, folder, arguments.rows))
            one = figures[-1]
            rate = arguments.rows / max(one["cpu_seconds"], 0.1)
            print(
                f"{step:15}{one['seconds']:9.1f}{one['cpu_seconds']:9.1f}{one['memory_mb']:11,}{one['disk_mb']:9,}"
                f"{rate:12,.0f}  {one['said']}",
                flush=True,
            )
    finally:
        if arguments.json:
            arguments.json.write_text(json.dumps({"rows": arguments.rows, "steps": figures}, indent=1))
        if not arguments.folder:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
