"""Answers to read one by one, with what each profile took them to say."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.benchmarks.question import Asked, Key
from pipelines.report.benchmark_results import BrowsedAnswer, Reading

KINDS = ("profiles disagree", "wrong", "right")


def answers(readings: Path, asked: Mapping[Key, Asked], *, per_place: int) -> list[BrowsedAnswer]:
    """At most so many answers per benchmark and language: a third of each kind, the models in turn, in file order."""
    kept: dict[tuple[str, str, str, str], list[BrowsedAnswer]] = defaultdict(list)
    most = max(1, per_place // len(KINDS))
    for line in _lines(readings):
        key: Key = tuple(line["key"])
        if line["answer"] is None or key not in asked:
            continue
        rights = [right for _, _, right in line["read"].values()]
        why = KINDS[0] if len(set(rights)) > 1 else KINDS[2] if all(rights) else KINDS[1]
        place = (key[0], key[1], why, line["model"])
        if len(kept[place]) < most:
            kept[place].append(_browsed(line, asked[key], why))
    models = max(1, len({model for *_, model in kept}))
    share = -(-most // models)
    found = [one for place in kept for one in kept[place][:share]]
    return sorted(found, key=lambda one: (one.benchmark, one.language, KINDS.index(one.why)))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def _browsed(line: Mapping[str, Any], asked: Asked, why: str) -> BrowsedAnswer:
    return BrowsedAnswer(
        benchmark=asked.benchmark,
        language=asked.language,
        item=asked.item,
        rotation=asked.rotation,
        model=line["model"],
        question=asked.question,
        options=list(asked.options),
        gold=asked.gold,
        answer=line["answer"],
        readings=[
            Reading(profile=profile, said=said, how=how, right=right)
            for profile, (said, how, right) in line["read"].items()
        ],
        why=why,
    )
