"""Asking: images once each, then every question, greedily and in batches; every batch is on disk before the next.

Rotations are asked in rounds, all first ones before any second: an item that no profile can find right any more is not
asked further, and the row says so. A killed run goes on after its last batch, in an object store after the last that was
kept there. What a server refuses is written down as refused; what it fails to answer is asked again in the next run.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from pipelines.answer.answerer import Answerer, NoAnswer, OwnModel
from pipelines.answer.spec import STAGE, AnswerSpec
from pipelines.benchmarks import answers as answers_file
from pipelines.benchmarks import suite
from pipelines.benchmarks.answers import LOST, REFUSED, UNANSWERED, Answer, Journal, refusal
from pipelines.benchmarks.benchmark import catalogue
from pipelines.benchmarks.question import Asked
from pipelines.errors import BadInput, Interrupted
from pipelines.fingerprint import fingerprint, input_versions
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work

BATCHES_AT_ONCE = 4
"""The answerer sorts what it is given by length, so it is given several batches."""
MOST_RUNS = 3
"""A question that a server fails to answer in so many runs is given up: it counts as refused."""


def run(spec: AnswerSpec, work: Work, progress: Progress) -> Outcome:
    """Write answers.jsonl: a row per benchmark, language, item and rotation.

    Raises:
        BadInput: a benchmark's longest answer is given under a name that no benchmark has; files or the model are wrong.
        Interrupted: a server left questions unanswered, which another run asks again.
    """
    if unknown := sorted(spec.parameters.max_new_tokens_of.keys() - catalogue().keys()):
        raise BadInput(
            f"there is no benchmark {unknown[0]!r}",
            where="parameters.max_new_tokens_of",
            remedy=f"the benchmarks are {', '.join(catalogue())}",
        )
    asked = suite.load(spec.benchmarks.values(), spec.parameters.languages, scratch=work.folder)
    identity = fingerprint(STAGE, spec, input_versions(spec))
    path = work.folder / answers_file.FILE
    work.restore([path], growing=True)
    journal = Journal(path, identity, keep=work.keep)
    resumed = len(journal.done)
    try:
        if resumed < len(asked):
            _ask(spec, asked, journal, work, progress)
    finally:
        journal.close()
    _check_answered(asked, journal)
    rows = [journal.done[one.key] for one in asked]
    experts = mean_experts(rows)
    answers_file.write(rows, work.out / answers_file.FILE, fingerprint=identity)
    return Outcome(
        metrics={
            "questions": len(asked),
            "images": len({one.image_sha256 for one in asked}),
            "asked": sum(row["answer"] is not None for row in rows),
            "not_asked_after_a_wrong_rotation": sum(row["skipped"] == LOST for row in rows),
            "refused": dict(sorted(Counter(filter(None, map(refusal, rows))).items())),
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


def _check_answered(asked: Sequence[Asked], journal: Journal) -> None:
    """Raises:
    Interrupted: a server left some questions unanswered, which another run asks again.
    """
    left = [one.key for one in asked if one.key not in journal.done]
    if left:
        failed = [key for key in left if journal.failures[key]]
        raise Interrupted(
            f"the server gave no answer to {len(failed)} of {len(asked)} questions, the first {failed[0]}: "
            f"{journal.failures[failed[0]][-1]}. {len(left) - len(failed)} further rotations wait for them. Run again: what "
            f"was answered is kept, and only these are asked; what gets no answer in {MOST_RUNS} runs is put down as refused"
        )


def _ask(spec: AnswerSpec, asked: Sequence[Asked], journal: Journal, work: Work, progress: Progress) -> None:
    """Ask what is open. What a server fails to answer stays open, and what depends on it."""
    open_ones = [one for one in asked if one.key not in journal.done]
    answerer = _answerer(spec, work)
    answerer.see({one.image_sha256: one for one in open_ones}, progress)
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
            if not before or not spec.parameters.stop_at_first_wrong or not catalogue()[one.benchmark].stops:
                alive.append(one)
            elif all(other.key in journal.done for other in before):
                (lost if is_lost(before, journal) else alive).append(one)
        journal.append([answers_file.row(one, None, LOST) for one in lost])
        progress.advance(len(lost))
        at_once = BATCHES_AT_ONCE * spec.batch_size
        for start in range(0, len(alive), at_once):
            batch = {one.key: one for one in alive[start : start + at_once]}
            for said in answerer.answer(list(batch.values()), tokens):
                experts = answerer.experts if isinstance(answerer, OwnModel) else {}
                journal.append(
                    [
                        answers_file.row(
                            batch[key], *_told(found, len(journal.failures[key])), experts.get(key)
                        )
                        for key, found in said.items()
                    ]
                )
                progress.advance(len(said))


def _told(found: str | NoAnswer, tries: int) -> tuple[str | None, str]:
    """A row's `answer` and `skipped`; `tries`: in how many earlier runs there was no answer."""
    if isinstance(found, str):
        return found, ""
    given_up = found.lasting or tries + 1 >= MOST_RUNS
    return None, (REFUSED if given_up else UNANSWERED) + found.reason


def is_lost(before: Sequence[Asked], journal: Journal) -> bool:
    """Whether under every profile an earlier rotation of the item was wrong.

    A refused one is wrong under some profiles, and left out under others, so it decides nothing.
    """
    done = [(one, journal.done[one.key]) for one in before]
    if any(row["skipped"] == LOST for _, row in done):
        return True
    said = [(one, row["answer"]) for one, row in done if row["answer"] is not None]
    readers = catalogue()[before[0].benchmark].readers.values()
    return not any(all(read(one, answer).right for one, answer in said) for read in readers)


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
