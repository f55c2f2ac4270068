"""What becomes of each pair: kept, or dropped for the first of these reasons that holds.

1. what the scoring stage dropped it for;
2. `score_missing`: the scores say nothing about it;
3. `blocked_url`, `blocked_domain`, `blocked_image`: it stands in a blocklist;
4. `nsfw`, `nsfw_score_missing`: after the scores that were given;
5. `placeholder_image`: its image file stands under too many URLs, as a server's default image does;
6. `caption_language`, `caption_too_short`, `caption_too_long`, `caption_repetitive`, `caption_cut`,
   `caption_common` (it stands under too many pairs);
7. `benchmark_image`, `benchmark_text`: a benchmark asks about it;
8. `score_below_threshold`: its score is not greater than the threshold;
9. `near_duplicate_hash`, `near_duplicate_cosine`: of a group of images that look alike, one that is left after all
   of the above and scores best is kept, with all of its captions. This needs all shards: see `duplicates.py`.

Conversations have no score and no caption, an image may be the subject of any number of them, and some have no image. So of the
above 1, 3, 4 and 7 are for them too (without an image, no rule about images holds), and in the place of 6 stand
`conversation_language`, `conversation_too_short`, `conversation_too_long`, `conversation_repetitive`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.facts import hashes
from pipelines.filter.screening import Blocked, Nsfw, database
from pipelines.filter.spec import CaptionRules, ConversationRules, FilterParameters
from pipelines.lake import takedown

SCORE_MISSING, PLACEHOLDER, BELOW = "score_missing", "placeholder_image", "score_below_threshold"

KEPT = pa.schema([("uid", pa.string()), ("score", pa.float32())])
DROPPED = pa.schema(
    [("uid", pa.string()), ("score", pa.float32()), ("reason", pa.string()), ("detail", pa.string())]
)
Flags = Any
"""A boolean array, one flag per row; null counts as false."""
Found = tuple[str, Flags, Any]
"""A reason, the rows that it holds for, and the details: one text for all, an array of texts, or None."""


@dataclass(frozen=True)
class Common:
    """What stands under too much, counted over all shards."""

    images: dict[str, int]
    """SHA-256 -> URLs that it came from: an image with many captions, as a dataset's own are, is no placeholder."""
    captions: dict[str, int]
    """Caption -> pairs."""


@dataclass(frozen=True)
class Rows:
    """One shard's raw pairs, with what is known of each; columns of equal length, in the shard's order."""

    raw: pa.Table
    """uid, url, caption, image_sha256 and more; see `run.RAW`."""
    score: Any
    lost_reason: Any
    lost_detail: Any
    perceptual_hash: Any
    facts: pa.Table | None
    """The columns of the table of facts, aligned."""
    domain: Any
    talks: bool = False
    """Whether these are conversations: the raw column `caption` is then all that is said."""


def too_common(shards: Sequence[Path], column: str, most: int | None, scratch: Path) -> dict[str, int]:
    """Value -> how often, of each value of a column that stands under more than `most`: images by URLs, captions by pairs.

    Counted over all shards in bounded memory: what does not fit goes to `scratch`.
    """
    if most is None or not shards:
        return {}
    files = [str(path) for path in shards]
    with database(scratch) as connection:
        found = dict(
            connection.execute(
                f"SELECT {column}, count(*) AS pairs FROM read_parquet(?) "  # noqa: S608  # a name of ours
                f"WHERE {column} IS NOT NULL GROUP BY {column} HAVING count(*) > ? ORDER BY {column}",
                [files, most],
            ).fetchall()
        )
        if column != "image_sha256" or not found:
            return found
        # Of the few under many pairs only: URLs are long, and counting those of every image would take most of the time.
        return dict(
            connection.execute(
                "SELECT image_sha256, count(DISTINCT url) AS urls FROM read_parquet(?) WHERE image_sha256 IN "
                "(SELECT unnest(?)) GROUP BY image_sha256 HAVING count(DISTINCT url) > ? ORDER BY image_sha256",
                [files, list(found), most],
            ).fetchall()
        )


def decide(
    rows: Rows, common: Common, blocked: Blocked, nsfw: Nsfw, parameters: FilterParameters
) -> tuple[Any, Any]:
    """The reason (null: kept so far) and the detail of each row."""
    size = rows.raw.num_rows
    reason: Any = rows.lost_reason
    detail: Any = rows.lost_detail
    for name, flags, words in _rules(rows, common, blocked, nsfw, parameters):
        hit = pc.and_(pc.fill_null(flags, False), pc.is_null(reason))
        if not pc.any(hit).as_py():
            continue
        reason = pc.if_else(hit, name, reason)
        told = pa.nulls(size, pa.string()) if words is None else words
        detail = pc.if_else(hit, told, detail)
    return reason, pc.if_else(pc.is_null(reason), pa.scalar(None, pa.string()), pc.fill_null(detail, ""))


def _rules(
    rows: Rows, common: Common, blocked: Blocked, nsfw: Nsfw, parameters: FilterParameters
) -> Iterator[Found]:
    """The rules that are switched on, in the order of their precedence."""
    if not rows.talks:
        yield SCORE_MISSING, pc.is_null(rows.score), None
    yield from _blocked(rows, blocked, parameters)
    yield "nsfw", pc.is_in(rows.raw["uid"], nsfw.above), None
    if nsfw.scored is not None:
        unscored = pc.invert(pc.is_in(rows.raw["uid"], nsfw.scored))
        yield "nsfw_score_missing", pc.and_(unscored, pc.is_valid(rows.raw["shard"])), None
    if rows.talks:
        yield from _texts("conversation", rows, parameters.conversations)
    else:
        yield PLACEHOLDER, *_common(rows.raw["image_sha256"], common.images, "URLs")
        yield from _captions(rows, common, parameters)
    if rows.facts is not None:
        for name, is_on in (
            ("benchmark_image", parameters.drop_benchmark_images),
            ("benchmark_text", parameters.drop_benchmark_texts),
        ):
            if is_on:
                yield name, pc.is_valid(rows.facts[name]), rows.facts[name]
    if rows.talks:
        return
    # Compared as float32, as the scores are stored: a score of exactly the threshold is not greater.
    yield BELOW, pc.less_equal(rows.score, pa.scalar(parameters.threshold, pa.float32())), None


def _blocked(rows: Rows, blocked: Blocked, parameters: FilterParameters) -> Iterator[Found]:
    if blocked.demands:
        yield takedown.REASON, blocked.demands.match(rows.raw["url"]), None
    if len(blocked.urls):
        yield "blocked_url", pc.is_in(rows.raw["url"], blocked.urls), None
    if blocked.domains:
        found = blocked.of_domains(rows.domain)
        yield "blocked_domain", pc.is_valid(found), found
    if len(blocked.sha256):
        yield "blocked_image", pc.is_in(rows.raw["image_sha256"], blocked.sha256), "by SHA-256"
    if len(blocked.hashes):
        # What has no hash, such as a conversation without an image, is near to none.
        values = pc.fill_null(rows.perceptual_hash, 0).to_numpy(zero_copy_only=False)
        near = hashes.nearest(values.astype(np.uint64), blocked.hashes, parameters.blocked_hash_bits) >= 0
        yield (
            "blocked_image",
            pc.and_(pa.array(near), pc.is_valid(rows.perceptual_hash)),
            "by perceptual hash",
        )


def _captions(rows: Rows, common: Common, parameters: FilterParameters) -> Iterator[Found]:
    rules = parameters.captions
    yield from _texts("caption", rows, rules)
    if rows.facts is not None and rules.drop_cut:
        yield "caption_cut", rows.facts["cut"], None
    yield "caption_common", *_common(rows.raw["caption"], common.captions, "pairs")


def _texts(what: str, rows: Rows, rules: CaptionRules | ConversationRules) -> Iterator[Found]:
    length = pc.utf8_length(rows.raw["caption"])
    if rows.facts is not None and rules.languages is not None:
        told, sure = rows.facts["language"], rows.facts["language_confidence"]
        other = pc.invert(pc.is_in(told, pa.array(rules.languages, pa.string())))
        is_sure = pc.and_(pc.is_valid(told), pc.greater_equal(sure, rules.least_confidence))
        yield f"{what}_language", pc.and_(other, is_sure), told
    if rules.fewest_characters is not None:
        yield f"{what}_too_short", pc.less(length, rules.fewest_characters), _number(length, "characters")
    if rules.most_characters is not None:
        yield f"{what}_too_long", pc.greater(length, rules.most_characters), _number(length, "characters")
    if rows.facts is not None and rules.most_repeated is not None:
        yield f"{what}_repetitive", pc.greater(rows.facts["repeated"], rules.most_repeated), None


def _common(values: Any, known: dict[str, int], of: str) -> tuple[Flags, Any]:
    if not known:
        return pa.array(np.zeros(len(values), dtype=bool)), None
    places = pc.index_in(values, pa.array(known.keys(), pa.string()))
    count = pc.take(pa.array(known.values(), pa.int64()), places)
    text = pc.binary_join_element_wise("stands under ", pc.cast(count, pa.string()), f" {of}", "")
    return pc.is_valid(places), text


def _number(values: Any, words: str) -> Any:
    return pc.binary_join_element_wise(pc.cast(values, pa.string()), words, " ")
