"""The world stage: writes every file of the world table.

Training data (crawl, sentences, documents, reference pairs, instructions) shows scenes that are not
held out; the benchmarks and the held-out sentences show only scenes that are.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import BadInput
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work
from pipelines.world import benchmark, crawl, instructions
from pipelines.world.documents import documents
from pipelines.world.faults import NO_FAULT
from pipelines.world.grammar import grammar
from pipelines.world.reference import reference_pairs
from pipelines.world.spec import WorldParameters, WorldSpec
from pipelines.world.text import held_out_sentences, parallel_sentences

TURN = pa.struct([(name, pa.string()) for name in ("language", "kind", "question", "answer")])
DOCUMENTS_SCHEMA = pa.schema(
    [("context_language", pa.string()), ("context", pa.string()), ("turns", pa.list_(TURN))]
)


def run(spec: WorldSpec, work: Work, progress: Progress) -> Outcome:
    """Write the table of the contract; the same bytes for the same parameters."""
    parameters = spec.parameters
    if parameters.pivot_language not in parameters.languages:
        raise BadInput(
            f"the pivot language {parameters.pivot_language!r} is none of the languages",
            where="world parameters",
            remedy="add it to `languages`, or choose another",
        )
    for language in parameters.languages:
        grammar(language)
    for folder in ("web", "crawl", "text", "reference", "instructions", "benchmark"):
        (work.out / folder).mkdir(parents=True, exist_ok=True)
    metrics = _web(parameters, work.out)
    _texts(parameters, work.out, progress)
    progress.start("reference pairs", parameters.reference_pairs)
    pairs = reference_pairs(parameters.reference_pairs, seed=parameters.seed, languages=parameters.languages)
    pq.write_table(pairs, work.out / "reference/pairs.parquet")
    progress.advance(parameters.reference_pairs)
    progress.start("instructions", parameters.instructions)
    taught = instructions.table(
        parameters.instructions,
        seed=parameters.seed,
        words=grammar(parameters.pivot_language),
        done=progress.advance,
    )
    pq.write_table(taught, work.out / f"instructions/{parameters.pivot_language}.parquet")
    _benchmarks(parameters, work.out)
    rows = {
        path.relative_to(work.out).as_posix(): pq.read_metadata(path).num_rows
        for path in sorted(work.out.rglob("*.parquet"))
    }
    return Outcome(metrics=metrics, rows=rows)


def _web(parameters: WorldParameters, out: Path) -> dict[str, object]:
    """The web, its first crawl with truth and manifest; returns what the crawl holds."""
    pages = crawl.draw_pages(parameters.pages, seed=parameters.seed)
    rows = crawl.draw_rows(
        pages,
        parameters.crawl_rows,
        seed=parameters.seed,
        words=grammar(parameters.pivot_language),
        origin=crawl.origin(parameters.port),
    )
    crawl.write_pages(pages, out / "web/pages.parquet")
    crawl.write_rows(rows, out / "crawl")
    # Relative to the manifest, which lies in the table's folder of this fingerprint.
    document = crawl.crawl_document(
        crawl=parameters.crawl, language=parameters.pivot_language, file="crawl/urls.parquet", world=".."
    )
    (out / "crawl.yaml").write_text(document, encoding="utf-8")
    faulty = sum(row.fault != NO_FAULT for row in rows)
    distinct = len({(row.url, row.caption) for row in rows})
    return {
        "crawl_rows": len(rows),
        "crawl_rows_with_a_fault": faulty,
        "crawl_fault_rate": round(faulty / len(rows), 4),
        "crawl_duplicate_rows": len(rows) - distinct,
    }


def _texts(parameters: WorldParameters, out: Path, progress: Progress) -> None:
    languages, seed = parameters.languages, parameters.seed
    pairs = parallel_sentences(parameters.sentences, seed=seed, languages=languages)
    pq.write_table(pa.Table.from_pylist(pairs), out / "text/pairs.parquet")
    held_out = held_out_sentences(parameters.held_out_sentences, seed=seed, languages=languages)
    pq.write_table(pa.Table.from_pylist(held_out), out / "text/heldout_pairs.parquet")
    progress.start("documents", parameters.documents)
    written = []
    for document in documents(parameters.documents, seed=seed, languages=languages):
        written.append(document)
        progress.advance()
    pq.write_table(pa.Table.from_pylist(written, DOCUMENTS_SCHEMA), out / "text/documents.parquet")


def _benchmarks(parameters: WorldParameters, out: Path) -> None:
    choice = benchmark.draw_items(parameters.mmmb_items, seed=parameters.seed, choice=True)
    open_ones = benchmark.draw_items(parameters.open_items, seed=parameters.seed, choice=False)
    requests = {language: grammar(language).choose for language in parameters.languages}
    (out / "benchmark/requests.json").write_text(json.dumps(requests, ensure_ascii=False), encoding="utf-8")
    for language in parameters.languages:
        benchmark.write_mmmb(choice, language, out / f"benchmark/mmmb_{language}.tsv")
        file = out / f"benchmark/open_{language}.parquet"
        benchmark.write_open_questions(open_ones, language, parameters.languages, file)
