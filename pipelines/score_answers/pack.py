"""`python -m pipelines.score_answers.pack SCORES --benchmark B PACK`: a calibration pack of what a judge said in some scores.

Named as `calibration` in a recipe, the pack's items are put before its judge too, and the report shows how far that one
is off this one. A pack is frozen: one that exists is not written over.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput
from pipelines.judge.items import Item, Review, item_of, review_of, write_pack
from pipelines.judge.spec import OVERLAP
from pipelines.lake import manifest
from pipelines.score_answers.spec import REVIEWS


def reviewed(scores: Path) -> list[dict[str, Any]]:
    """The lines of a table's reviews.jsonl.

    Raises:
        BadInput: the table was never published, or by a version of its stage that kept no reviews.
    """
    with manifest.file(scores, REVIEWS).open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def pack(
    scores: Path,
    benchmark: str,
    *,
    languages: Collection[str] = (),
    models: Collection[str] = (),
    most: int | None = None,
) -> tuple[list[Item], list[Review]]:
    """Items of a benchmark with the reviews, reference first, that did not fail; an item's id begins with its model.

    `languages`, `models`: without any, all; `most`: so many items, evenly spaced over all there are.

    Raises:
        BadInput: no review is left, or no model wrote them.
    """  # fmt: skip
    lines = reviewed(scores)
    kept: list[tuple[Item, Review]] = []
    for line in lines:
        item = item_of(line["item"])
        if line["benchmark"] != benchmark or (languages and item.language not in languages):
            continue
        if models and line["model"] not in models:
            continue
        name = f"{line['model']}/{item.id}"
        for review in map(review_of, line["reviews"]):
            if review.order == "reference_first" and not review.failure:
                kept.append((replace(item, id=name), replace(review, id=name)))
    if not kept:
        there = sorted(
            {f"{line['benchmark']} {line['item']['language']} of {line['model']}" for line in lines}
        )
        raise BadInput(
            "there are no such reviews",
            where=scores / REVIEWS,
            remedy=f"name some of: {', '.join(there)}" if there else "score a benchmark that is judged",
        )
    if any(review.judge == OVERLAP for _, review in kept):
        raise BadInput(
            f"these scores are by {OVERLAP}, which no judge can be held against",
            where=scores / REVIEWS,
            remedy="name a `server` under `judge` in the recipe, and score again",
        )
    if most is not None and most < len(kept):
        kept = [kept[place * len(kept) // most] for place in range(most)]
    return [item for item, _ in kept], [review for _, review in kept]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.score_answers.pack", description=__doc__)
    parser.add_argument("scores", type=Path, help="the table of scores, such as data/<recipe>/scores")
    parser.add_argument("--benchmark", required=True, help="one that is judged, such as llava")
    parser.add_argument("--language", action="append", default=[], help="without it, all")
    parser.add_argument("--model", action="append", default=[], help="without it, all")
    parser.add_argument("--most", type=int, help="at most so many items, evenly spaced")
    parser.add_argument("pack", type=Path, help="the file to write, JSON lines")
    given = parser.parse_args(arguments)
    if given.most is not None and given.most < 1:
        parser.error("--most is at least 1")
    try:
        if given.pack.exists():
            raise BadInput(
                "the pack exists, and a pack is never changed",
                where=given.pack,
                remedy="name another file, or delete this one",
            )
        items, reviews = pack(
            given.scores, given.benchmark, languages=given.language, models=given.model, most=given.most
        )
        given.pack.parent.mkdir(parents=True, exist_ok=True)
        write_pack(given.pack, items, reviews)
    except BadInput as error:
        sys.stderr.write(f"error: {error}\n")
        return BAD_INPUT_EXIT_CODE
    judges = ", ".join(sorted({one.judge for one in reviews}))
    sys.stdout.write(f"{len(items)} items with the reviews of {judges}: {given.pack}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
