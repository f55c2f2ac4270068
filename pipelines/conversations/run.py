"""Translating conversations chunk by chunk. A conversation is translated whole, or dropped for a reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipelines.conversations import llava, table
from pipelines.conversations.spec import ConversationParameters, ConversationSpec
from pipelines.lake import cache, manifest
from pipelines.lake.ledger import Ledger
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work
from pipelines.translate.guarded import Reject, TranslatesTexts, Translation, translate_all
from pipelines.translate.pieces import Piece, joined, pieces
from pipelines.translate.translators import hold_to_gate, stage_translator

DROPPED_FILE = "dropped.jsonl"
SAMPLES = 5
_SHOWN_CHARACTERS = 300


class ChunkReport(BaseModel):
    """What became of a chunk, written last: a chunk is finished when its report exists."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kept: dict[str, int]
    dropped: dict[str, int]
    texts: int
    """Distinct sentences or lines that were translated."""


def run(spec: ConversationSpec, work: Work, progress: Progress) -> Outcome:
    """Write `<language>.jsonl` per target language in the order of the source, and `dropped.jsonl`."""
    parameters, targets = spec.parameters, spec.parameters.target_languages
    pairs = [(parameters.source_language, target) for target in targets]
    hold_to_gate(spec.translator, parameters.least_bleu, pairs, spec.test_scores)
    translator = stage_translator(spec, parameters.decoding, work.folder, progress.say)
    folder = work.folder / "translated"
    folder.mkdir(exist_ok=True)
    _restore(work, folder)
    names = [*(f"{language}.jsonl" for language in targets), DROPPED_FILE]
    entries = _entries(spec)
    reports: list[ChunkReport] = []
    for number in count():
        chunk = list(islice(entries, parameters.conversations_per_chunk))
        if not chunk:
            break
        report = folder / f"report-{number:05d}.json"
        if not report.is_file():
            progress.start(
                f"conversations {number * parameters.conversations_per_chunk:,} and on", unit="text"
            )
            made = _translate_chunk(chunk, translator, parameters, folder, number, progress)
            manifest.write_atomically(report, made.model_dump_json().encode())
            for path in (*(_part(folder, name, number) for name in names), report):
                work.keep(path)
        reports.append(ChunkReport.model_validate_json(report.read_bytes()))
    for name in names:
        _join((_part(folder, name, number) for number in range(len(reports))), work.out / name)
    return _outcome(reports, targets, work.out)


def _restore(work: Work, folder: Path) -> None:
    """Bring the chunks that an earlier run finished on another machine."""
    whole = {path.stem.removeprefix("report-") for path in folder.glob("report-*.json")}
    for part in folder.glob("*.jsonl"):
        if part.name.partition("-")[0] not in whole:
            # That run may have translated otherwise what was begun here: its files belong together.
            part.unlink()
    work.restore([folder])


def _entries(spec: ConversationSpec) -> Iterator[Any]:
    if spec.corpus is not None:
        return table.entries(spec.corpus, spec.filtered)
    return llava.read(cache.local(spec.conversations)) if spec.conversations is not None else iter(())


def _translate_chunk(
    entries: list[Any],
    translator: TranslatesTexts,
    parameters: ConversationParameters,
    folder: Path,
    number: int,
    progress: Progress,
) -> ChunkReport:
    said = [llava.values(entry) for entry in entries]
    parted = [
        None if one is None else [pieces(value, sentences=parameters.sentences) for value in one]
        for one in said
    ]
    texts = {
        piece.text for one in parted if one is not None for parts in one for piece in parts if piece.translate
    }
    kept: dict[str, int] = {}
    dropped: list[dict[str, Any]] = []
    for language in parameters.target_languages:
        results = translate_all(
            translator, texts, parameters.source_language, language, parameters.guard, progress.advance
        )
        written = []
        for entry, one in zip(entries, parted, strict=True):
            words, reason = (None, llava.MALFORMED) if one is None else _translated(one, results)
            if words is None:
                name = entry.get("id") if isinstance(entry, dict) else None
                dropped.append({"id": name, "language": language, "reason": reason})
            else:
                written.append(llava.with_values(entry, words, language))
        kept[language] = len(written)
        _write(_part(folder, f"{language}.jsonl", number), written)
    _write(_part(folder, DROPPED_FILE, number), dropped)
    reasons = Counter(row["reason"] for row in dropped)
    return ChunkReport(kept=kept, dropped=dict(sorted(reasons.items())), texts=len(texts))


def _translated(
    messages: list[list[Piece]], results: dict[str, Translation | Reject]
) -> tuple[list[str] | None, str]:
    """What is said in every message, or None and why one of them cannot be translated."""
    words: list[str] = []
    for parts in messages:
        text, reason = joined(parts, results)
        if text is None:
            return None, reason
        words.append(text)
    return words, ""


def _part(folder: Path, name: str, number: int) -> Path:
    return folder / f"{number:05d}-{name}"


def _write(path: Path, documents: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for document in documents:
            stream.write(json.dumps(document, ensure_ascii=False) + "\n")


def _join(parts: Iterable[Path], path: Path) -> None:
    with path.open("wb") as stream:
        for part in parts:
            stream.write(part.read_bytes())


def _outcome(reports: list[ChunkReport], targets: list[str], out: Path) -> Outcome:
    kept: Counter[str] = Counter(dict.fromkeys(targets, 0))
    dropped: Counter[str] = Counter()
    for report in reports:
        kept.update(report.kept)
        dropped.update(report.dropped)
    samples = {}
    for language in targets:
        with (out / f"{language}.jsonl").open(encoding="utf-8") as stream:
            shown = [json.loads(line)["conversations"][:2] for line in islice(stream, SAMPLES)]
        samples[language] = [
            {message["from"]: message["value"][:_SHOWN_CHARACTERS] for message in turn} for turn in shown
        ]
    units = kept.total() + dropped.total()
    return Outcome(
        ledger=Ledger(rows_in=units, kept=kept.total(), dropped=dict(sorted(dropped.items()))),
        metrics={
            "conversations": dict(kept),
            "rejects": dict(sorted(dropped.items())),
            "texts": sum(report.texts for report in reports),
            "samples": samples,
        },
        rows={**{f"{language}.jsonl": kept[language] for language in targets}, DROPPED_FILE: dropped.total()},
    )
