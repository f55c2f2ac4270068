"""Making an instruction mix: which samples are translated, and the shards of the blend.

Samples are candidates for translation in the order of a seeded hash of their ids, so a larger share
translates a superset of what a smaller one does. A candidate whose translation is rejected leaves the
mix, and the next one takes its place until the share holds.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import BadInput
from pipelines.instructions import corpora
from pipelines.instructions.spec import InstructionParameters, InstructionSpec
from pipelines.instructions.turn import Instruction, translated
from pipelines.lake import manifest
from pipelines.lake.buckets import hash_keys
from pipelines.lake.identity import pair_uid
from pipelines.lake.ledger import Ledger
from pipelines.lake.shards import INDEX_FILE, ShardWriter, image_extension, write_index
from pipelines.model_card.origin import LICENSES, license_of
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work
from pipelines.translate.guarded import Reject, TranslatesTexts, Translation, translate_all
from pipelines.world.spec import LICENSE as WORLD_LICENSE

PREFIX = "shard"
DROPPED_FILE = "dropped.parquet"
DROPPED = pa.schema([(name, pa.string()) for name in ("id", "language", "question", "reason")])
_TEXT_COLUMNS = ("id", "kind", "question", "options", "answer", "choose")
_ROWS_READ_TOGETHER = 512
SAMPLES = 10


class Chosen(NamedTuple):
    """What becomes of the instructions: the translated by row, each with its language; the dropped with its reason."""

    translated: dict[int, tuple[str, Instruction]]
    dropped: dict[int, tuple[str, str]]


def run(spec: InstructionSpec, work: Work, progress: Progress) -> Outcome:
    """Write the tars, `index.parquet` and `dropped.parquet`."""
    # Of a killed run, translations are kept, and tars are not.
    shutil.rmtree(work.out)
    work.out.mkdir()
    dropped: list[dict[str, str]] = []
    metrics: dict[str, Any] = {}
    with ShardWriter(work.out, PREFIX, spec.parameters.samples_per_shard) as writer:
        if spec.world is not None:
            metrics, dropped = _add_world(spec, spec.world, writer, work, progress)
        if spec.corpora:
            counts, left_out = corpora.add(spec, writer, progress)
            metrics["corpora"] = {name: one.languages for name, one in counts.items()}
            metrics["without_image"] = {name: one.without_image for name, one in counts.items()}
            dropped += left_out
    metrics[LICENSES] = _licenses(spec)
    kept = len(writer.rows)
    write_index(work.out / INDEX_FILE, writer.rows)
    pq.write_table(pa.Table.from_pylist(dropped, DROPPED), work.out / DROPPED_FILE)
    return Outcome(
        ledger=Ledger.of(kept=kept, reasons=[row["reason"] for row in dropped]),
        metrics=metrics,
        rows={INDEX_FILE: kept, DROPPED_FILE: len(dropped)},
    )


def _licenses(spec: InstructionSpec) -> dict[str, str]:
    own = {} if spec.world is None else {"world": WORLD_LICENSE}
    return own | {name: license_of(table) for name, table in sorted(spec.corpora.items())}


def _add_world(
    spec: InstructionSpec, world: Path, writer: ShardWriter, work: Work, progress: Progress
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Write the world's instructions, a share of them translated; return the metrics and the dropped."""
    parameters = spec.parameters
    path = _instructions_file(world, parameters.pivot_language)
    table = pq.read_table(path, columns=list(_TEXT_COLUMNS))
    ids: list[str] = table["id"].to_pylist()
    instructions = [_instruction(row) for row in table.drop_columns("id").to_pylist()]
    chosen = Chosen({}, {})
    if parameters.target_share > 0:
        progress.start("translating", unit="sentence")
        chosen = choose(ids, instructions, _translator(spec, work, progress), parameters, progress.advance)
    kept = len(ids) - len(chosen.dropped)
    progress.start("shards", kept, unit="sample")
    for row, image in enumerate(_images(path)):
        if row in chosen.dropped:
            continue
        language, instruction = chosen.translated.get(row, (parameters.pivot_language, instructions[row]))
        uid = pair_uid(ids[row], language)
        turn = {"language": language, "question": instruction.prompt, "answer": instruction.reply}
        document = {"uid": uid, "source": parameters.source, "turns": [turn]}
        writer.add(uid, image, image_extension(image), document, [language])
        progress.advance()
    dropped = [
        {"id": ids[row], "language": language, "question": instructions[row].prompt, "reason": reason}
        for row, (language, reason) in sorted(chosen.dropped.items())
    ]
    return _metrics(chosen, instructions, parameters, kept), dropped


def target_count(share: float, samples: int) -> int:
    """How many of so many samples are translated: rounded up, so that a share above 0 is never none."""
    # As a decimal fraction: in floating point 0.1 x 30 is above 3, and would round up to 4.
    return math.ceil(Fraction(repr(share)) * samples)


def choose(
    ids: Sequence[str],
    instructions: Sequence[Instruction],
    translator: TranslatesTexts,
    parameters: InstructionParameters,
    done: Callable[[int], None],
) -> Chosen:
    """Translate candidates in their order until the share holds among the samples that are left.

    `done` is told how many more texts are translated.
    """
    order = np.lexsort((np.array(ids, dtype=object), hash_keys(ids, parameters.seed))).tolist()
    languages = parameters.target_languages
    chosen = Chosen({}, {})
    known: dict[str, dict[str, Translation | Reject]] = {language: {} for language in languages}
    while True:
        tried = len(chosen.translated) + len(chosen.dropped)
        wanted = target_count(parameters.target_share, len(ids) - len(chosen.dropped))
        lacking = wanted - len(chosen.translated)
        if lacking <= 0:
            return chosen
        wave = [
            (row, languages[place % len(languages)])
            for place, row in enumerate(order[tried : tried + lacking], start=tried)
        ]
        for language in languages:
            texts = {text for row, target in wave if target == language for text in instructions[row].texts}
            new = texts - known[language].keys()
            known[language] |= translate_all(
                translator, new, parameters.pivot_language, language, parameters.guard, done
            )
        for row, language in wave:
            instruction, reason = translated(instructions[row], known[language])
            if instruction is None:
                chosen.dropped[row] = language, reason
            else:
                chosen.translated[row] = language, instruction


def _translator(spec: InstructionSpec, work: Work, progress: Progress) -> TranslatesTexts:
    if spec.translator is None:
        raise BadInput(
            f"a share of {spec.parameters.target_share} shall be translated, but there is no translator",
            where="translator",
            remedy="name the table foundations/translator, or set `target_share` to 0",
        )
    # Imported here: a mix in the pivot language alone needs no translator.
    from pipelines.translate.translators import hold_to_gate, stage_translator

    parameters = spec.parameters
    pairs = [(parameters.pivot_language, target) for target in parameters.target_languages]
    hold_to_gate(spec.translator, parameters.least_bleu, pairs, spec.test_scores)
    return stage_translator(spec, parameters.decoding, work.folder, progress.say)


def _instructions_file(world: Path, language: str) -> Path:
    name = f"instructions/{language}.parquet"
    paths = manifest.files(world, name)
    if not paths:
        raise BadInput(
            f"the world has no {name}",
            where=world,
            remedy="set the world's `pivot_language` to the mix's",
        )
    return paths[0]


def _instruction(row: dict[str, Any]) -> Instruction:
    return Instruction(row["kind"], row["question"], tuple(row["options"]), row["answer"], row["choose"])


def _images(path: Path) -> Iterator[bytes]:
    """The images, row by row, few at a time in memory."""
    for batch in pq.ParquetFile(path).iter_batches(_ROWS_READ_TOGETHER, columns=["image"]):
        yield from batch.column("image").to_pylist()


def _metrics(
    chosen: Chosen, instructions: Sequence[Instruction], parameters: InstructionParameters, kept: int
) -> dict[str, Any]:
    languages = [language for language, _ in chosen.translated.values()]
    counts = {language: languages.count(language) for language in parameters.target_languages}
    return {
        "samples": {parameters.pivot_language: kept - len(languages), **counts},
        "target_share": round(len(languages) / kept, 6) if kept else 0.0,
        "rejected_translations": len(chosen.dropped),
        "translated_samples": [
            {
                "language": language,
                "source": instructions[row].prompt,
                "question": instruction.prompt,
                "answer": instruction.answer,
            }
            for row, (language, instruction) in list(chosen.translated.items())[:SAMPLES]
        ],
    }
