"""Checks that stand between a table and what would be built on it; each reads the manifest.

All but warnings block: where one fails, the table stays for inspection and nothing downstream runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from assets.losses import logged_losses
from pipelines.lake import manifest as manifests
from pipelines.lake.manifest import Manifest
from pipelines.score_answers.earlier import flat

DROPPED_FILE = "dropped.jsonl"
NAMED = 5
"""Of the headlines that fell, how many are named."""


@dataclass(frozen=True)
class Verdict:
    """Whether a table passes, and the words for it."""

    passed: bool
    words: str


@dataclass(frozen=True)
class Check:
    """One condition on a table."""

    name: str
    description: str
    judge: Callable[[Path, Manifest], Verdict]
    blocking: bool = True
    """Whether nothing downstream runs where it fails; else it is a warning."""


def checksums() -> Check:
    """Every file of the table is there with the digest that its manifest states."""

    def judge(table: Path, manifest: Manifest) -> Verdict:
        found = manifests.faults(table, manifest)
        return Verdict(not found, "; ".join(found[:5]) or f"{len(manifest.files)} files match their sha256")

    return Check("checksums", "Every file has the sha256 that the manifest states.", judge)


def ledger_balanced() -> Check:
    """Every row that came in was kept, or dropped for a named reason."""

    def judge(_: Path, manifest: Manifest) -> Verdict:
        ledger = manifest.ledger
        if ledger is None:
            return Verdict(False, "the stage published no ledger")
        words = f"{ledger.rows_in} in = {ledger.kept} kept + {sum(ledger.dropped.values())} dropped"
        return Verdict(ledger.balanced, words)

    return Check("ledger_balanced", "rows in = rows kept + rows dropped, by reason.", judge)


def keep_rate(low: float, high: float) -> Check:
    """The share of rows kept lies in the range that the recipe expects; of conversations, all may be kept."""

    def judge(_: Path, manifest: Manifest) -> Verdict:
        if manifest.ledger is None:
            return Verdict(False, "the stage published no ledger")
        rate = manifest.ledger.keep_rate
        most = 1.0 if manifest.metrics.get("records") == "conversations" else high
        words = f"kept {rate:.1%}; expected {low:.0%} to {most:.0%}"
        return Verdict(low <= rate <= most, words)

    return Check("keep_rate_in_range", f"Between {low:.0%} and {high:.0%} of the rows are kept.", judge)


def non_empty() -> Check:
    """There is something in the table."""

    def judge(_: Path, manifest: Manifest) -> Verdict:
        rows = manifest.rows if manifest.ledger is None else manifest.ledger.kept
        # A list of what was dropped, as JSON lines, may well be empty.
        empty = [
            file.path for file in manifest.files if file.bytes == 0 and Path(file.path).name != DROPPED_FILE
        ]
        if empty:
            return Verdict(False, f"empty files: {', '.join(empty[:5])}")
        return Verdict(rows > 0, f"{rows} rows in {len(manifest.files)} files")

    return Check("non_empty", "The table has rows, and none of its files is empty.", judge)


def loss_finite() -> Check:
    """Every logged loss is a number, to the last step."""

    def judge(table: Path, manifest: Manifest) -> Verdict:
        losses = logged_losses(table, manifest)
        if not losses:
            return Verdict(False, "the stage published no losses")
        wrong = [step for step, loss in enumerate(losses) if loss is None or not math.isfinite(loss)]
        if wrong:
            return Verdict(
                False, f"{len(wrong)} of {len(losses)} logged losses are no numbers, first {wrong[0]}"
            )
        return Verdict(True, f"{losses[0]:.4g} to {losses[-1]:.4g} in {len(losses)} logged losses")

    return Check("loss_finite", "Every logged loss is a finite number.", judge)


def bleu_above_gate(pivot: str, least: Mapping[str, float], elsewhere: Collection[str] = ()) -> Check:
    """The translator's BLEU on held-out sentences reaches the gate of every language pair that has one.

    `elsewhere`: pairs that a test set measures, which has a check of its own: they may lack held-out sentences.
    """

    def judge(_: Path, manifest: Manifest) -> Verdict:
        words, passed = [], True
        for pair, wanted in sorted(least.items()):
            source, target = pair.split("-")
            found = manifest.metrics.get(target, {}).get("bleu") if source == pivot else None
            if found is None and pair in elsewhere:
                words.append(f"{pair} by its test sets")
                continue
            passed = passed and found is not None and found >= wanted
            words.append(f"{pair} {'not measured' if found is None else found} (at least {wanted:g})")
        return Verdict(passed, "BLEU: " + ", ".join(words))

    return Check("bleu_above_gate", "BLEU on held-out sentences reaches the gate of each pair.", judge)


def score_above_gate(least: float) -> Check:
    """The translator's BLEU on this test set reaches the gate of its language pair."""

    def judge(_: Path, manifest: Manifest) -> Verdict:
        found = manifest.metrics["bleu"]
        return Verdict(found >= least, f"BLEU {found} for {manifest.metrics['pair']} (at least {least:g})")

    return Check("bleu_above_gate", "BLEU on this test set reaches the gate of its language pair.", judge)


def scores_complete() -> Check:
    """Every model answered every question of every benchmark, in every language and rotation."""

    def judge(_: Path, manifest: Manifest) -> Verdict:
        complete = manifest.metrics.get("complete") is True
        words = "some questions lack answers, or a server refused too many: see `complete` in scores.json"
        return Verdict(complete, "every question was answered" if complete else words)

    return Check("scores_complete", "Every model answered every question, in every language.", judge)


def judge_failures(most: float) -> Check:
    """The judge reviewed what it was asked to, but for a small share."""

    def judge(_: Path, manifest: Manifest) -> Verdict:
        rate = manifest.metrics.get("judge_failure_rate")
        if not isinstance(rate, float | int):
            return Verdict(False, "the stage published no judge_failure_rate")
        words = f"{rate:.1%} of the reviews by {manifest.metrics.get('judge')} failed at worst; allowed are {most:.0%}"
        return Verdict(rate <= most, words)

    return Check("judge_failure_rate", f"At most {most:.0%} of the judge's reviews failed.", judge)


def left_in_english(most: float) -> Check:
    """A benchmark that was put into further languages is in those languages, but for a small share."""

    def judge(table: Path, _: Manifest) -> Verdict:
        from pipelines.benchmarks.left_in_english import left_in_english as found  # loads every benchmark

        left = found(table)
        words = ", ".join(
            f"{language} {one.share:.1%} ({one.english} of {one.texts} texts)"
            for language, one in left.items()
        )
        passed = all(one.share <= most for one in left.values())
        return Verdict(
            passed, f"stayed English, allowed are {most:.0%}: {words}" if left else "nothing was translated"
        )

    return Check(
        "left_in_english",
        f"Of the texts of each further language, at most {most:.0%} stayed English because the guard rejected their translation.",
        judge,
    )


def no_regression(largest: float, runs: int) -> Check:
    """No headline lies below the best of the last runs or is gone since the last; a warning, as a change may be meant."""

    def judge(_: Path, manifest: Manifest) -> Verdict:
        earlier = manifest.metrics.get("runs", [])[-runs:]
        if not earlier:
            return Verdict(True, "these are the first scores of the recipe")
        fallen = []
        scored = flat(manifest.metrics["models"])
        for name, now in scored.items():
            before = [(run[name], run["created"]) for run in earlier if run.get(name) is not None]
            if now is None or not before:
                continue
            best, made = max(before)
            if best - now > largest * max(1.0, best):
                fallen.append(f"{name}: {best:g} (scores of {made}) -> {now:g}")
        last = {name: value for name, value in earlier[-1].items() if name != "created"}
        gone = [name for name, value in last.items() if value is not None and scored.get(name) is None]
        words = f"against the best of {len(earlier)} earlier runs, back to {earlier[0]['created']}: "
        told = [_first_of(fallen)] if fallen else []
        if gone:
            told.append(f"scored in the last run and not in this one: {_first_of(gone)}")
        return Verdict(not told, words + ("; ".join(told) or "no headline fell"))

    return Check(
        "no_regression",
        f"No headline lies more than {largest:.0%} below the best of the last {runs} runs, or is gone since the last.",
        judge,
        blocking=False,
    )


def _first_of(names: Sequence[str]) -> str:
    further = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return "; ".join(names[:NAMED]) + further
