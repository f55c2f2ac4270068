"""Whether a model answered what it was asked: what is missing, and what a server refused, which is neither right nor wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.benchmarks.answers import Answer, refusal
from pipelines.benchmarks.question import Asked, Key

NAMED_MISSING = 10
"""How many of the unanswered questions are named."""


def completeness(
    asked: Sequence[Asked], answers: Mapping[Key, Answer], *, most_refused: float
) -> dict[str, Any]:
    """Plain JSON: complete where no question is missing, and no benchmark has more than this share refused in a language.

    `refused` names each benchmark and language that has some: how many, of how many that were put, and why.
    """
    missing = [" ".join(map(str, one.key)) for one in asked if one.key not in answers]
    put: Counter[tuple[str, str]] = Counter()
    reasons: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for one in asked:
        row = answers.get(one.key)
        if row is None:
            continue
        reason = refusal(row)
        put[one.key[:2]] += row["answer"] is not None or bool(reason)
        if reason:
            reasons[one.key[:2]][reason] += 1
    refused = {
        " ".join(place): {
            "refused": found.total(),
            "of": put[place],
            "reasons": dict(sorted(found.items())),
            "too_many": found.total() > most_refused * put[place],
        }
        for place, found in reasons.items()
    }
    return {
        "complete": not missing and not any(place["too_many"] for place in refused.values()),
        "expected": len(asked),
        "answered": len(asked) - len(missing) - sum(map(Counter.total, reasons.values())),
        "missing": missing[:NAMED_MISSING],
        "refused": refused,
        "most_refused": most_refused,
    }
