"""The judged benchmarks of a scoring: what the judge said, as scores, as ratings of items, and word by word.

    reviews.jsonl   a line per answer: model, benchmark, the item as the judge was shown it, and its reviews

A review that failed is asked for again by the next run. Where too many failed, nothing is published; all others are kept.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.benchmarks import judged
from pipelines.benchmarks.answers import Answer
from pipelines.benchmarks.benchmark import Benchmark, Judged, catalogue
from pipelines.benchmarks.question import Asked, Key
from pipelines.crawls import LANGUAGE_PATTERN
from pipelines.errors import BadInput, Interrupted
from pipelines.judge.aggregate import lacking
from pipelines.judge.items import Item, Review, read_pack, review_document
from pipelines.judge.spec import Judge
from pipelines.progress import Progress
from pipelines.score_answers.spec import ScoreAnswersSpec

Place = tuple[str, str]
"""benchmark, language"""
SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class Reviewed:
    """A judged benchmark in one language: its scores, its items' ratings, and what they come from."""

    document: dict[str, Any]
    ratings: list[Judged]
    items: list[Item]
    reviews: list[Review]

    @property
    def failed(self) -> list[Review]:
        return [one for one in self.reviews if one.failure]


def judged_places(
    spec: ScoreAnswersSpec, asked: Sequence[Asked], answers: Mapping[Key, Answer], progress: Progress
) -> dict[Place, Reviewed]:
    """The judged benchmarks by place.

    Raises:
        Interrupted: the judge is down; what it said is kept for the next run.
    """
    found: dict[Place, Reviewed] = {}
    places = questions_by_place(asked)
    if not places:
        return found
    from pipelines.judge.judging import judge  # loads what talks to servers, which most scorings need not

    for place, of_place in places.items():
        benchmark = catalogue()[place[0]]
        by = judge_of(spec, benchmark)
        items = judged.judge_items(of_place, answers)
        reviews = judge(
            items, by, spec.judge_cache, progress,
            rules=rules_of(spec, benchmark), conduct=spec.conduct, account=str(spec.output),
        )  # fmt: skip
        found[place] = Reviewed(
            judged.document(benchmark, of_place, reviews, by),
            judged.rated_items(of_place, reviews, by, str(benchmark.protocol)),
            items,
            reviews,
        )
    return found


def questions_by_place(asked: Sequence[Asked]) -> dict[Place, list[Asked]]:
    """The questions whose answers a judge rates."""
    places: dict[Place, list[Asked]] = {}
    for one in asked:
        if catalogue()[one.benchmark].protocol is not None:
            places.setdefault((one.benchmark, one.language), []).append(one)
    return places


def judge_of(spec: ScoreAnswersSpec, benchmark: Benchmark) -> Judge:
    """The judge as it rates this benchmark."""
    by = spec.judge.model_copy(update={"protocol": benchmark.protocol})
    return by.model_copy(update={"swap": False}) if benchmark.protocol == "rating" else by


def calibrated(spec: ScoreAnswersSpec, benchmark: Benchmark) -> Judge:
    """The judge as it rates this benchmark's pack: only the order that the pack has."""
    return judge_of(spec, benchmark).model_copy(update={"swap": False})


def rules_of(spec: ScoreAnswersSpec, benchmark: Benchmark) -> dict[str, Path]:
    """The published rules of this benchmark, by language."""
    parts = {name: name.partition(".") for name in spec.rules}
    return {parts[name][2]: path for name, path in spec.rules.items() if parts[name][0] == benchmark.name}


def check_rules(spec: ScoreAnswersSpec) -> None:
    """Raises:
    BadInput: a rule's name is not of a judged benchmark and a language, so that no judge would be given it.
    """
    rated = [name for name, one in catalogue().items() if one.protocol is not None]
    for name, path in spec.rules.items():
        if not re.fullmatch(rf"({'|'.join(rated)})\.{LANGUAGE_PATTERN.strip('^$')}", name):
            raise BadInput(
                f"{name!r} is no judged benchmark and language, so no judge would be given this rule",
                where=f"rules, {name}: {path}",
                remedy=f"name it like {rated[0]}.en; benchmarks that are judged: {', '.join(rated)}",
            )


def drift(spec: ScoreAnswersSpec, progress: Progress) -> dict[str, dict[str, Any]]:
    """By benchmark, this judge against the reviews in a calibration pack.

    Raises:
        BadInput: a pack is of a benchmark that no judge rates, or cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    if not spec.calibration:
        return found
    from pipelines.judge.calibration import drift as measured
    from pipelines.judge.judging import judge  # as above

    for name, path in spec.calibration.items():
        benchmark, pack = read_calibration(name, path)
        now = judge(
            [item for item, _ in pack], calibrated(spec, benchmark), spec.judge_cache, progress,
            rules=rules_of(spec, benchmark), conduct=spec.conduct, account=str(spec.output),
        )  # fmt: skip
        found[name] = measured([review for _, review in pack], now)
    return found


def read_calibration(name: str, path: Path) -> tuple[Benchmark, list[tuple[Item, Review]]]:
    """The benchmark of this name, and its calibration pack.

    Raises:
        BadInput: no judge rates the benchmark, or the pack cannot be read.
    """
    rated = {one: of for one, of in catalogue().items() if of.protocol is not None}
    if name not in rated:
        raise BadInput(
            f"no judge rates {name!r}, so there is nothing to calibrate",
            where="calibration",
            remedy=f"name a benchmark that is judged: {', '.join(rated)}",
        )
    return rated[name], read_pack(path)


def hold_to(most: float, reviewed: Mapping[str, Mapping[Place, Reviewed]]) -> None:
    """Stop where too many reviews failed, so that the next run asks for those alone.

    Raises:
        Interrupted: names each model and benchmark of which a larger share than `most` failed.
    """
    above = [
        f"{model}, {benchmark} in {language}: {_failed_words(found)}"
        for model, places in reviewed.items()
        for (benchmark, language), found in places.items()
        if len(found.failed) > most * len(found.reviews)
    ]
    if above:
        raise Interrupted(
            f"too many reviews failed, and at most {most:.1%} may (`most_judge_failures`). All others are kept; "
            "the next run asks for the failed ones alone. Where they fail again, look at what the judge writes:\n    "
            + "\n    ".join(above)
            + "\n"
        )


def _failed_words(found: Reviewed) -> str:
    reasons = Counter(one.failure for one in found.failed)
    words = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    first = found.failed[0]
    said = " ".join(first.text.split())[:SHOWN_CHARACTERS] or "(nothing)"
    return f"{len(found.failed)} of {len(found.reviews)} ({words}; the first on item {first.id}: {said})"


def left_open(reviewed: Mapping[str, Mapping[Place, Reviewed]], drifted: Mapping[str, Any]) -> str:
    """What the next run will ask for again, in words; "" where every review is there."""
    failed = sum(len(found.failed) for places in reviewed.values() for found in places.values())
    failed += sum(found["without_a_review_now"] for found in drifted.values())
    return lacking(failed)


def lines(model: str, reviewed: Mapping[Place, Reviewed]) -> Iterator[str]:
    """The lines of reviews.jsonl of one model."""
    for (benchmark, _), found in reviewed.items():
        of_item: dict[str, list[dict[str, Any]]] = {}
        for one in found.reviews:
            of_item.setdefault(one.id, []).append(review_document(one))
        for item in found.items:
            line = {"model": model, "benchmark": benchmark, "item": asdict(item), "reviews": of_item[item.id]}
            yield json.dumps(line, ensure_ascii=False) + "\n"
