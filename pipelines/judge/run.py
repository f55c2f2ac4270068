"""The judging stage: reviews as JSON lines, the figures by language, and the drift from another judge."""

from __future__ import annotations

import json
from typing import Any

from pipelines.errors import Interrupted
from pipelines.judge import calibration, overlap
from pipelines.judge.aggregate import lacking, scored
from pipelines.judge.items import read_items, read_pack, write_reviews
from pipelines.judge.judging import estimate, judge
from pipelines.judge.spec import JudgeSpec
from pipelines.lake.ledger import Ledger
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work

REVIEWS_FILE, JUDGEMENT_FILE = "reviews.jsonl", "judgement.json"


def estimated(spec: JudgeSpec) -> str:
    """What judging would cost, in words, without a request."""
    items = read_items(spec.items)
    if spec.calibration is not None:
        items += [item for item, _ in read_pack(spec.calibration)]
    found = estimate(items, spec.judge, spec.cache, rules=spec.rules, conduct=spec.conduct)
    return f"{spec.judge.name} asks no server" if found is None else found.words()


def run(spec: JudgeSpec, work: Work, progress: Progress) -> Outcome:
    """Write reviews.jsonl and judgement.json.

    Raises:
        Interrupted: the judge is down, or too many of its reviews failed; what it said is kept for the next run.
    """
    items = read_items(spec.items)
    account = str(spec.output)
    reviews = judge(
        items, spec.judge, spec.cache, progress, rules=spec.rules, conduct=spec.conduct, account=account
    )
    headline = [one for one in reviews if one.order == "reference_first"]
    failed = [one.failure for one in headline if one.failure]
    lost = sum(bool(one.failure) for one in reviews)
    if len(failed) > spec.most_failures * len(headline):
        raise Interrupted(
            f"{len(failed)} of {len(headline)} items in {spec.items} got no review ({', '.join(sorted(set(failed)))}). "
            "The next run asks for those alone; where they fail again, look at what the judge writes, or raise "
            "`most_failures`"
        )
    # The overlap measures what it measures, whatever a model would be asked for.
    protocol = "pair" if spec.judge.server is None else spec.judge.protocol
    languages = sorted({item.language for item in items})
    document: dict[str, Any] = {
        "judge": spec.judge.name,
        "is_a_model": spec.judge.server is not None,
        "protocol": protocol,
        "reading": spec.judge.reading,
        "languages": {
            language: scored([one for one in reviews if one.language == language], protocol)
            for language in languages
        },
    }
    if spec.judge.server is None:
        document["signature"] = overlap.signature()
    if spec.calibration is not None:
        pack = read_pack(spec.calibration)
        again = judge(
            [item for item, _ in pack], spec.judge.model_copy(update={"swap": False}), spec.cache, progress,
            rules=spec.rules, conduct=spec.conduct, account=account,
        )  # fmt: skip
        document["drift"] = calibration.drift([review for _, review in pack], again)
        lost += document["drift"]["without_a_review_now"]
    write_reviews(work.out / REVIEWS_FILE, reviews)
    text = json.dumps(document, ensure_ascii=False, indent=1)
    (work.out / JUDGEMENT_FILE).write_text(text + "\n", encoding="utf-8")
    return Outcome(
        ledger=Ledger.of(kept=len(headline) - len(failed), reasons=failed),
        metrics={
            "judge": spec.judge.name,
            "scores": {name: found["pooled"]["score"] for name, found in document["languages"].items()},
            **({"drift": document["drift"]} if "drift" in document else {}),
        },
        rows={REVIEWS_FILE: len(reviews)},
        incomplete=lacking(lost),
    )
