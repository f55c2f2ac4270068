"""From answers to items: what each profile reads in each answer, and the figures of each item."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.benchmarks.answers import Answer, refusal
from pipelines.benchmarks.benchmark import HEADLINE_PROFILE, Benchmark, Judged, Reading, Row
from pipelines.benchmarks.question import Asked, Key
from pipelines.benchmarks.statistics import Estimate, estimate

MISSING = Reading(None, "missing", False)
SKIPPED = Reading(None, "skipped", False)
"""Not asked, since an earlier rotation was wrong."""
REFUSED = Reading(None, "refused", False)
"""Asked, and a server would not answer."""
WITHOUT_ANSWER = frozenset(one.how for one in (MISSING, SKIPPED, REFUSED))


@dataclass(frozen=True)
class Scored:
    """One benchmark in one language under one profile."""

    rows: list[Row]
    items: list[Judged]

    @property
    def values(self) -> dict[str, Judged]:
        return {one.item: one for one in self.items}


def read(benchmark: Benchmark, profile: str, asked: Sequence[Asked], answers: Mapping[Key, Answer]) -> Scored:
    """Every question with what the profile reads in its answer, and the items that they make up.

    A question without an answer, refused ones too, is wrong, except under the profiles of tools that score only what
    was answered: there its row is left out, and its item with it if the row is the first.
    """
    reader = benchmark.readers[profile]
    groups: dict[str, list[Row]] = defaultdict(list)
    for one in asked:
        groups[one.item].append((one, _reading(one, answers.get(one.key), reader)))
    rows: list[Row] = []
    items: list[Judged] = []
    for item, group in groups.items():
        of_item = sorted(group, key=lambda row: row[0].rotation)
        if profile in benchmark.leaves_missing_out:
            if of_item[0][1] in (MISSING, REFUSED):
                continue
            of_item = [row for row in of_item if row[1] not in (MISSING, REFUSED)]
        rows += of_item
        first = of_item[0][0]
        items.append(
            Judged(item, first.category, first.image_sha256, benchmark.values(of_item), dict(first.details))
        )
    return Scored(rows, items)


def _reading(asked: Asked, answer: Answer | None, reader: Any) -> Reading:
    if answer is None:
        return MISSING
    if answer["answer"] is None:
        return REFUSED if refusal(answer) else SKIPPED
    found: Reading = reader(asked, answer["answer"])
    return found


def figures(benchmark: Benchmark, profile: str, items: Sequence[Judged]) -> dict[str, Any]:
    """Every figure of the items under a profile, as plain JSON; None where nothing was counted."""
    found = estimates(benchmark, profile, items)
    return {name: None if one is None else one.document() for name, one in found.items()}


def estimates(benchmark: Benchmark, profile: str, items: Sequence[Judged]) -> dict[str, Estimate | None]:
    """The same, to all digits."""
    found: dict[str, Estimate | None] = {name: mean(items, name) for name in benchmark.figures}
    if profile in benchmark.totals:
        found |= benchmark.totals[profile](items)
    return found


def mean(items: Sequence[Judged], figure: str) -> Estimate | None:
    """The mean of a figure over the items that have it, with its error clustered by image."""
    counted = [one for one in items if figure in one.values]
    return estimate([one.values[figure] for one in counted], [one.image for one in counted])


def by_category(benchmark: Benchmark, items: Sequence[Judged]) -> dict[str, Any]:
    """The plain figures of each category."""
    names = [name for name in benchmark.figures if name != "unresolved"]
    found = {}
    for category in sorted({one.category for one in items}):
        of_one = [one for one in items if one.category == category]
        means = {name: mean(of_one, name) for name in names}
        found[category] = {name: None if one is None else one.document() for name, one in means.items()}
    return found


def document(benchmark: Benchmark, scored: Mapping[str, Scored]) -> dict[str, Any]:
    """One benchmark in one language: the headline profile's figures at the top, every profile's below."""
    shown = scored.get(HEADLINE_PROFILE) or next(iter(scored.values()))
    profiles = {name: figures(benchmark, name, of_one.items) for name, of_one in scored.items()}
    top = profiles.get(HEADLINE_PROFILE) or next(iter(profiles.values()))
    how = Counter(reading.how for _, reading in shown.rows)
    return {
        "headline": benchmark.figures[0],
        "items": len(shown.items),
        **top,
        "by_category": by_category(benchmark, shown.items),
        "extraction": dict(sorted(how.items())),
        "profiles": profiles,
        "extraction_cost": {
            name: _cost(
                shown, of_one, top.get(benchmark.figures[0]), profiles[name].get(benchmark.figures[0])
            )
            for name, of_one in scored.items()
            if of_one is not shown
        },
    }


def _cost(ours: Scored, theirs: Scored, top: Any, theirs_top: Any) -> dict[str, Any]:
    """What reading the same answers by another tool's rules does: to the score, and to how many answers."""
    found = {row[0].key: row[1] for row in theirs.rows}
    pairs = [(reading, found[one.key]) for one, reading in ours.rows if one.key in found]
    pairs = [(one, other) for one, other in pairs if one.how not in WITHOUT_ANSWER]
    count = max(1, len(pairs))
    return {
        "headline": None
        if top is None or theirs_top is None
        else round(theirs_top["value"] - top["value"], 4),
        "read_by_robust_alone": round(
            sum(a.said is not None and b.said is None for a, b in pairs) / count, 4
        ),
        "read_differently": round(
            sum(a.said is not None and b.said is not None and a.right != b.right for a, b in pairs) / count, 4
        ),
    }
