"""The translation stage: the captions of the kept pairs, each distinct one translated once.

Captions are parted into chunks by a hash of their text, so that equal captions meet in one chunk
whatever shards they came from. A chunk is translated, guarded, put back to its pairs and written; a run
that was killed goes on with the first chunk that is not written.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from pipelines.lake import buckets, kept_pairs, manifest
from pipelines.lake.ledger import Ledger
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work
from pipelines.translate.guarded import Reject, TranslatesTexts, Translation, translate_all
from pipelines.translate.spec import DROPPED_FILE, TranslateParameters, TranslateSpec
from pipelines.translate.translators import hold_to_gate, stage_translator

CAPTIONS = pa.schema([("uid", pa.string()), ("language", pa.string()), ("caption", pa.string())])
TRANSLATIONS = pa.schema([("uid", pa.string()), ("text", pa.string())])
DROPPED = pa.schema([(name, pa.string()) for name in ("uid", "language", "source", "output", "reason")])
SAMPLES = 10
_DROPPED = "dropped"


class Sample(BaseModel):
    """A caption and its translation, to look at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uid: str
    language: str
    source: str
    text: str


class ChunkReport(BaseModel):
    """What became of a chunk. A chunk is finished when its report exists, which is written last."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kept: dict[str, int]
    """Translations, by target language."""
    dropped: dict[str, int]
    """Rejects, by reason."""
    distinct: int
    """Texts that were translated."""
    seconds: float
    samples: list[Sample]


def run(spec: TranslateSpec, work: Work, progress: Progress) -> Outcome:
    """Write `<language>.parquet` per target language, and `dropped.parquet`."""
    parameters, targets = spec.parameters, spec.parameters.target_languages
    pairs = kept_pairs.count(spec.filtered_pairs)
    chunks = buckets.bucket_count(pairs, parameters.captions_per_chunk)
    _part_into_chunks(spec, work.folder, chunks)
    folder = work.folder / "translated"
    folder.mkdir(exist_ok=True)
    _restore(work, folder, targets, chunks)
    unfinished = [number for number in range(chunks) if not _report_path(folder, number).is_file()]
    if unfinished:
        if len(unfinished) < chunks:
            progress.say(f"{chunks - len(unfinished)} of {chunks} chunks were translated already")
        translator = stage_translator(spec, parameters.decoding, work.folder, progress.say)
        for number in unfinished:
            captions = buckets.read_bucket(work.folder / "captions", number).sort_by("uid")
            sources = sorted(captions["language"].unique().to_pylist())
            directions = [(source, target) for source in sources for target in targets]
            hold_to_gate(spec.translator, parameters.least_bleu, directions, spec.test_scores)
            progress.start(f"chunk {number + 1} of {chunks}", unit="sentence")
            _translate_chunk(captions, translator, parameters, folder, number, progress)
            for path in (*_parts(folder, targets, number), _report_path(folder, number)):
                work.keep(path)
        if translator.kept:
            progress.say(f"{translator.kept:,} texts had been translated before")
    for language in targets:
        _join((_part(folder, language, n) for n in range(chunks)), work.out / f"{language}.parquet", TRANSLATIONS)  # fmt: skip
    _join((_part(folder, _DROPPED, n) for n in range(chunks)), work.out / DROPPED_FILE, DROPPED)
    reports = [
        ChunkReport.model_validate_json(_report_path(folder, number).read_bytes()) for number in range(chunks)
    ]
    return _outcome(reports, targets)


def _part_into_chunks(spec: TranslateSpec, folder: Path, chunks: int) -> None:
    """Write the kept captions into `folder/captions`, unless an earlier run did."""
    finished = folder / "captions-complete"
    if finished.is_file():
        return
    with buckets.BucketWriter(folder / "captions", CAPTIONS, chunks) as writer:
        for rows in kept_pairs.read(spec.raw_pairs, spec.filtered_pairs, CAPTIONS.names):
            writer.add(rows.select(CAPTIONS.names), buckets.hash_keys(rows["caption"].to_pylist()))
    manifest.write_atomically(finished, b"")


def _restore(work: Work, folder: Path, targets: list[str], chunks: int) -> None:
    """Bring the chunks that an earlier run finished on another machine."""
    for number in range(chunks):
        if not _report_path(folder, number).is_file():
            # That run may have translated otherwise what was begun here: its files belong together.
            for part in _parts(folder, targets, number):
                part.unlink(missing_ok=True)
    work.restore([folder])


def _parts(folder: Path, targets: list[str], number: int) -> list[Path]:
    """The files of a chunk, besides its report."""
    return [_part(folder, name, number) for name in (*targets, _DROPPED)]


def _part(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}-{number:03d}.parquet"


def _translate_chunk(
    captions: pa.Table,
    translator: TranslatesTexts,
    parameters: TranslateParameters,
    folder: Path,
    number: int,
    progress: Progress,
) -> None:
    """Translate the captions (columns of CAPTIONS) into every target language, and write the chunk's files."""
    started = time.monotonic()
    rows = captions.to_pylist()
    dropped: list[dict[str, str]] = []
    samples: list[Sample] = []
    kept, distinct = {}, 0
    for target in parameters.target_languages:
        results: dict[tuple[str, str], Translation | Reject] = {}
        # A caption that is in the target language already needs no translation.
        for source in sorted({row["language"] for row in rows} - {target}):
            texts = {row["caption"] for row in rows if row["language"] == source}
            for text, result in translate_all(
                translator, texts, source, target, parameters.guard, progress.advance
            ).items():
                results[source, text] = result
        distinct += len(results)
        written = []
        for row in rows:
            judged = results.get((row["language"], row["caption"]))
            if isinstance(judged, Translation):
                written.append({"uid": row["uid"], "text": judged.text})
                if len(written) <= SAMPLES:
                    samples.append(
                        Sample(uid=row["uid"], language=target, source=judged.source, text=judged.text)
                    )
            elif isinstance(judged, Reject):
                dropped.append(
                    {
                        "uid": row["uid"],
                        "language": target,
                        "source": judged.source,
                        "output": judged.output,
                        "reason": judged.reason.value,
                    }
                )
        kept[target] = len(written)
        pq.write_table(pa.Table.from_pylist(written, TRANSLATIONS), _part(folder, target, number))
    pq.write_table(pa.Table.from_pylist(dropped, DROPPED), _part(folder, _DROPPED, number))
    report = ChunkReport(
        kept=kept,
        dropped=dict(sorted(Counter(row["reason"] for row in dropped).items())),
        distinct=distinct,
        seconds=time.monotonic() - started,
        samples=samples,
    )
    manifest.write_atomically(_report_path(folder, number), report.model_dump_json().encode())


def _report_path(folder: Path, number: int) -> Path:
    return folder / f"report-{number:03d}.json"


def _join(parts: Iterable[Path], path: Path, schema: pa.Schema) -> None:
    """Put the chunks' files into one, a row group per chunk."""
    with pq.ParquetWriter(path, schema) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part, schema=schema))


def _outcome(reports: list[ChunkReport], targets: list[str]) -> Outcome:
    kept: Counter[str] = Counter(dict.fromkeys(targets, 0))
    dropped: Counter[str] = Counter()
    for report in reports:
        kept.update(report.kept)
        dropped.update(report.dropped)
    units = kept.total() + dropped.total()
    distinct = sum(report.distinct for report in reports)
    seconds = sum(report.seconds for report in reports)
    samples: dict[str, list[dict[str, Any]]] = {language: [] for language in targets}
    for sample in (sample for report in reports for sample in report.samples):
        if len(samples[sample.language]) < SAMPLES:
            samples[sample.language].append(sample.model_dump())
    return Outcome(
        ledger=Ledger(rows_in=units, kept=kept.total(), dropped=dict(sorted(dropped.items()))),
        metrics={
            "translations": dict(kept),
            "rejects": dict(sorted(dropped.items())),
            "distinct_sentences": distinct,
            "distinct_share": round(distinct / units, 4) if units else 1.0,
            "sentences_per_second": round(distinct / seconds, 1) if seconds else 0.0,
            "samples": samples,
        },
        rows={
            **{f"{language}.parquet": kept[language] for language in targets},
            DROPPED_FILE: dropped.total(),
        },
    )
