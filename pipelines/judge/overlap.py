"""A score without a judge: how much of the reference an answer shares, by chrF (Popović 2015).

Needs no model and no network, and is the same everywhere. It tells a right short answer from a wrong one;
it does not tell a good explanation from a fluent wrong one, so its figures are named after what they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sacrebleu.metrics.chrf import CHRF

from pipelines.judge.items import Item, Review
from pipelines.judge.spec import OVERLAP

_HIGHEST = 10.0


def signature() -> str:
    """sacrebleu's: what it takes to compare two of these scores."""
    metric = CHRF()
    name = metric.corpus_score([""], [[""]]).name
    return f"{name}|{metric.get_signature()}"


def reviews(items: Sequence[Item]) -> Iterator[Review]:
    """The reference scores 10 by definition, an answer the tenth of its chrF (0 to 100) against it."""
    metric = CHRF()
    for item in items:
        references = [item.reference, *item.human_answers]
        share = metric.sentence_score(item.answer.strip(), references).score
        yield Review(
            id=item.id,
            language=item.language,
            category=item.category,
            order="reference_first",
            reference_score=_HIGHEST,
            answer_score=round(share / 100 * _HIGHEST, 4),
            failure="",
            text="",
            judge=OVERLAP,
        )
