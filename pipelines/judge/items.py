"""What is judged, and what came of it, as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from pipelines.errors import BadInput

Order = Literal["reference_first", "answer_first"]


@dataclass(frozen=True)
class Item:
    """An answer with what a judge must know to rate it."""

    id: str
    language: str
    category: str
    question: str
    reference: str
    answer: str
    context: str = ""
    """What stands in the image, in words: captions and boxes."""
    human_answers: tuple[str, ...] = ()
    rationale: str = ""
    image: str = ""
    """Tells which items are about one image."""


@dataclass(frozen=True)
class Review:
    """A judge's word on one item. With a `failure` there are no scores, and it enters no mean."""

    id: str
    language: str
    category: str
    order: Order
    reference_score: float | None
    answer_score: float | None
    failure: str
    text: str
    """What the judge wrote; of a failure, what is known of it."""
    judge: str
    """The model that says it answered, which is not always the one that was asked for."""
    fingerprint: str | None = None
    prompt_sha256: str = ""
    kept: bool = False
    """Whether it was written in an earlier run."""


def read_items(path: Path) -> list[Item]:
    """The items in a file.

    Raises:
        BadInput: the file is missing or a line is no item; an id stands twice in a language.
    """
    return [item for item, _ in _read(path)]


def read_pack(path: Path) -> list[tuple[Item, Review]]:
    """The items in a calibration pack, each with the stored review.

    Raises:
        BadInput: as for `read_items`; a line has no review.
    """
    pairs = []
    for item, review in _read(path):
        if review is None:
            raise BadInput(
                "this item of the calibration pack has no `review`",
                where=f"{path}, id {item.id!r}",
                remedy="make the pack with `python -m pipelines.score_answers.pack`",
            )
        pairs.append((item, review))
    return pairs


def write_items(path: Path, items: Iterable[Item]) -> None:
    _write(path, (asdict(item) for item in items))


def review_document(review: Review) -> dict[str, Any]:
    """Without `kept`, so that a run which found answers kept writes the bytes of the one that asked."""
    return {name: value for name, value in asdict(review).items() if name != "kept"}


def write_reviews(path: Path, reviews: Iterable[Review]) -> None:
    _write(path, map(review_document, reviews))


def write_pack(path: Path, items: Sequence[Item], reviews: Sequence[Review]) -> None:
    """A calibration pack: items with the reviews, reference first, of the judge they are to be held against."""
    by_key = {
        (one.id, one.language): one for one in reviews if one.order == "reference_first" and not one.failure
    }
    _write(
        path,
        (
            {**asdict(item), "review": asdict(by_key[item.id, item.language])}
            for item in items
            if (item.id, item.language) in by_key
        ),
    )


_ITEM, _REVIEW = TypeAdapter(Item), TypeAdapter(Review)


def item_of(document: dict[str, Any]) -> Item:
    """The item of a stage's own line."""
    return _ITEM.validate_python(document)


def review_of(document: dict[str, Any]) -> Review:
    """The review of a stage's own line."""
    return _REVIEW.validate_python(document)


def _read(path: Path) -> list[tuple[Item, Review | None]]:
    found: list[tuple[Item, Review | None]] = []
    seen: set[tuple[str, str]] = set()
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise BadInput("the items do not exist", where=path, remedy="check the path") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"the items are not UTF-8: {error}", where=path, remedy="save them as UTF-8") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            document = json.loads(line)
            review = document.pop("review", None) if isinstance(document, dict) else None
            item = _ITEM.validate_python(document)
            found.append((item, None if review is None else _REVIEW.validate_python(review)))
        except (json.JSONDecodeError, ValidationError) as error:
            words = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise BadInput(
                f"this line is no item: {words}",
                where=where,
                remedy=f"an item has the keys {', '.join(Item.__dataclass_fields__)}",
            ) from None
        if (item.id, item.language) in seen:
            raise BadInput(
                f"the id {item.id!r} stands twice in {item.language}", where=where, remedy="make ids differ"
            )
        seen.add((item.id, item.language))
    if not found:
        raise BadInput("there is nothing to judge in it", where=path, remedy="check the path")
    return found


def _write(path: Path, documents: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for document in documents:
            stream.write(json.dumps(document, ensure_ascii=False) + "\n")
