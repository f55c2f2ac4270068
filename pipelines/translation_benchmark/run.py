"""Translating a test set and scoring it. Every segment counts, whatever the guard thinks of its translation."""

from __future__ import annotations

import json
from collections import Counter

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from pipelines.foundations.translator.bleu import tokenizer_for
from pipelines.lake.ledger import Ledger
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work
from pipelines.translate.guarded import Reject, translate_all
from pipelines.translate.translators import stage_translator
from pipelines.translation_benchmark.files import digest, load
from pipelines.translation_benchmark.spec import TranslationBenchmarkSpec

SEGMENTS_FILE = "segments.jsonl"
SAMPLES = 10


def run(spec: TranslationBenchmarkSpec, work: Work, progress: Progress) -> Outcome:
    """Write segments.jsonl: source, reference, output, and the guard's reason where it has one."""
    test_set = spec.test_set
    sources, references = load(test_set, work.folder)
    translator = stage_translator(spec, spec.decoding, work.folder, progress.say)
    progress.start(test_set.name, len(set(sources)), unit="segment")
    results = translate_all(
        translator, sources, test_set.source_language, test_set.target_language, spec.guard, progress.advance
    )
    rows = []
    for source, reference in zip(sources, references, strict=True):
        result = results[source]
        rejected = isinstance(result, Reject)
        # What a rejected translation would have said is scored: a benchmark is of the model, not of the guard.
        output = result.output if isinstance(result, Reject) else result.text
        reason = result.reason.value if isinstance(result, Reject) else ""
        if rejected and reason == "no_answer":
            output = ""
        rows.append({"source": source, "reference": reference, "output": output, "reason": reason})
    with (work.out / SEGMENTS_FILE).open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    outputs = [row["output"] for row in rows]
    bleu, chrf = BLEU(tokenize=tokenizer_for(test_set.target_language)), CHRF()
    rejects = Counter(row["reason"] for row in rows if row["reason"])
    return Outcome(
        ledger=Ledger.of(kept=len(rows), reasons=[]),
        metrics={
            "test_set": test_set.name,
            "pair": test_set.pair,
            "segments": len(rows),
            "bleu": round(bleu.corpus_score(outputs, [references]).score, 2),
            "bleu_signature": str(bleu.get_signature()),
            "chrf": round(chrf.corpus_score(outputs, [references]).score, 2),
            "chrf_signature": str(chrf.get_signature()),
            "reference_digest": digest(references),
            "guard_would_drop": dict(sorted(rejects.items())),
            "samples": rows[:SAMPLES],
        },
        rows={SEGMENTS_FILE: len(rows)},
    )
