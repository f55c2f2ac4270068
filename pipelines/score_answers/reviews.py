"""The judged benchmarks of a scoring: what the judge said, as scores and as ratings of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.benchmarks import judged
from pipelines.benchmarks.answers import Answer
from pipelines.benchmarks.benchmark import Judged, catalogue
from pipelines.benchmarks.question import Asked, Key
from pipelines.progress import Progress
from pipelines.score_answers.spec import ScoreAnswersSpec

Place = tuple[str, str]
"""benchmark, language"""


@dataclass(frozen=True)
class Reviewed:
    """A judged benchmark in one language: its scores, and its items' ratings."""

    document: dict[str, Any]
    items: list[Judged]


def judged_places(
    spec: ScoreAnswersSpec, asked: Sequence[Asked], answers: Mapping[Key, Answer], progress: Progress
) -> dict[Place, Reviewed]:
    """The judged benchmarks by place. A judge that is down stops the run; what it said is kept for the next."""
    places: dict[Place, list[Asked]] = {}
    for one in asked:
        if catalogue()[one.benchmark].protocol is not None:
            places.setdefault((one.benchmark, one.language), []).append(one)
    found: dict[Place, Reviewed] = {}
    if not places:
        return found
    from pipelines.judge.judging import judge  # loads what talks to servers, which most scorings need not

    for place, of_place in places.items():
        benchmark = catalogue()[place[0]]
        by = spec.judge.model_copy(update={"protocol": benchmark.protocol})
        if benchmark.protocol == "rating":
            by = by.model_copy(update={"swap": False})
        rules = {
            language: path
            for name, path in spec.rules.items()
            for of, _, language in [name.partition(".")]
            if of == place[0]
        }
        found_reviews = judge(
            judged.judge_items(of_place, answers), by, spec.judge_cache, progress,
            rules=rules, conduct=spec.conduct, account=str(spec.output),
        )  # fmt: skip
        found[place] = Reviewed(
            judged.document(benchmark, of_place, found_reviews, by),
            judged.rated_items(of_place, found_reviews, by, str(benchmark.protocol)),
        )
    return found
