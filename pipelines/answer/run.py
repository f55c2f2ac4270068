"""Asking: images once each, then every question, greedily and in batches; every batch is on disk before the next.

Rotations are asked in rounds, all first ones before any second: an item that no profile can find right any more is not
asked further, and the row says so. A killed run goes on after its last batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pipelines.answer.answerer import Answerer, OwnModel
from pipelines.answer.spec import STAGE, AnswerSpec
from pipelines.benchmarks import answers as answers_file
from pipelines.benchmarks import suite
from pipelines.benchmarks.answers import LOST, Answer, Journal
from pipelines.benchmarks.benchmark import catalogue
from pipelines.benchmarks.question import Asked
from pipelines.fingerprint import fingerprint, input_versions
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work

BATCHES_AT_ONCE = 4
"""The answerer sorts what it is given by length, so it is given several batches."""


def run(spec: AnswerSpec, work: Work, progress: Progress) -> Outcome:
    """Write answers.jsonl: a row per benchmark, language, item and rotation."""
    asked = suite.load(spec.benchmarks.values(), spec.parameters.languages)
    identity = fingerprint(STAGE, spec, input_versions(spec))
    journal = Journal(work.folder / answers_file.FILE, identity)
    resumed = len(journal.done)
    try:
        if resumed < len(asked):
            _ask(spec, asked, journal, work, progress)
    finally:
        journal.close()
    rows = [journal.done[one.key] for one in asked]
    experts = mean_experts(rows)
    answers_file.write(rows, work.out / answers_file.FILE, fingerprint=identity)
    return Outcome(
        metrics={
            "questions": len(asked),
            "images": len({one.image_sha256 for one in asked}),
            "asked": sum(row["answer"] is not None for row in rows),
            "not_asked_after_a_wrong_rotation": sum(row["skipped"] == LOST for row in rows),
            "empty_answers": sum(row["answer"] is not None and not row["answer"].strip() for row in rows),
            "resumed_from": resumed,
            **({"experts": experts} if experts else {}),
        },
        rows={answers_file.FILE: len(rows)},
    )


def mean_experts(rows: Sequence[Answer]) -> dict[str, list[float]]:
    """Parrot's Fig. 5c: the mean weight of each expert by the questions' language; nothing without experts."""
    by_language: dict[str, list[list[float]]] = defaultdict(list)
    for row in rows:
        if "experts" in row:
            by_language[row["language"]].append(row["experts"])
    return {
        language: [round(sum(column) / len(weights), 4) for column in zip(*weights, strict=True)]
        for language, weights in sorted(by_language.items())
    }


def _ask(spec: AnswerSpec, asked: Sequence[Asked], journal: Journal, work: Work, progress: Progress) -> None:
    """Answer what is open."""
    open_ones = [one for one in asked if one.key not in journal.done]
    answerer = _answerer(spec, work)
    answerer.see({one.image_sha256: one.image for one in open_ones}, progress)
    limits = spec.parameters.max_new_tokens_of
    rounds: dict[tuple[int, int], list[Asked]] = defaultdict(list)
    for one in open_ones:
        rounds[one.rotation, limits.get(one.benchmark, spec.parameters.max_new_tokens)].append(one)
    earlier: dict[tuple[str, str, str], list[Asked]] = defaultdict(list)
    for one in asked:
        earlier[one.key[:3]].append(one)
    progress.start("questions", len(asked), unit="question", done=len(journal.done))
    for rotation, tokens in sorted(rounds):
        alive: list[Asked] = []
        lost: list[Asked] = []
        for one in rounds[rotation, tokens]:
            before = [other for other in earlier[one.key[:3]] if other.rotation < rotation]
            ends = spec.parameters.stop_at_first_wrong and is_lost(before, journal)
            (lost if ends else alive).append(one)
        if lost:
            journal.append([answers_file.row(one, None, LOST) for one in lost])
            progress.advance(len(lost))
        at_once = BATCHES_AT_ONCE * spec.batch_size
        for start in range(0, len(alive), at_once):
            batch = alive[start : start + at_once]
            said = answerer.answer(batch, tokens)
            experts = answerer.experts if isinstance(answerer, OwnModel) else {}
            journal.append(
                [
                    answers_file.row(one, text, experts=experts.get(one.key))
                    for one, text in zip(batch, said, strict=True)
                ]
            )
            progress.advance(len(batch))


def is_lost(before: Sequence[Asked], journal: Journal) -> bool:
    """Whether under every profile an earlier rotation of the item was wrong, and the score allows to stop there."""
    if not before or not catalogue()[before[0].benchmark].stops:
        return False
    said = [(one, journal.done[one.key]["answer"]) for one in before]
    if any(answer is None for _, answer in said):
        return True
    readers = catalogue()[before[0].benchmark].readers.values()
    return not any(all(read(one, answer or "").right for one, answer in said) for read in readers)


def _answerer(spec: AnswerSpec, work: Work) -> Answerer:
    if spec.transformers_model is not None:
        from pipelines.answer.transformers_model import TransformersModel

        return TransformersModel(spec.transformers_model, batch_size=spec.batch_size)
    if spec.server is not None:
        from pipelines.answer.endpoint import Endpoint

        return Endpoint(spec.server, spec.conduct, spec.cache, account=str(spec.output))
    if spec.model is None:
        raise AssertionError("the spec has a model")
    return OwnModel(
        manifest.folder(spec.model),
        scratch=work.folder / "features.bin",
        batch_size=spec.batch_size,
        beams=spec.parameters.beams,
    )
