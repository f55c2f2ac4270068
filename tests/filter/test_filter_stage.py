"""Guarantees of the filter, on published tables of the stages before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.errors import BadInput
from pipelines.filter.quality import against_truth
from pipelines.filter.spec import STAGE, FilterParameters, FilterSpec
from pipelines.lake import manifest
from pipelines.stage import execute
from tests import tables

ROWS = 30
SCORES = {index: 0.02 * index for index in range(ROWS)}
"""Row 9 has exactly the threshold, 0.18."""
UNSCORED, UNDECODABLE = 20, 21


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """30 pairs; the images of rows 22 to 26 are one placeholder."""
    made = tables.world_rows(ROWS)
    return [
        row | {"image": made[22]["image"]} if 22 <= place <= 26 else row for place, row in enumerate(made)
    ]


@pytest.fixture
def raw(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    return tables.raw_pairs(tmp_path / "raw", rows)


def score_table(table: Path, raw: Path, rows: list[dict[str, Any]]) -> Path:
    """Scores of all rows but two, in no particular order."""

    def write(folder: Path) -> None:
        for number in range(3):
            mine = [place for place in range(number, ROWS, 3) if place not in (UNSCORED, UNDECODABLE)][::-1]
            scores = {
                "uid": [rows[place]["uid"] for place in mine],
                "score": pa.array([SCORES[place] for place in mine], pa.float32()),
            }
            pq.write_table(pa.table(scores), folder / f"scores-{number:05d}.parquet")
            lost = [rows[UNDECODABLE]["uid"]] if number == UNDECODABLE % 3 else []
            dropped = {
                "uid": pa.array(lost, pa.string()),
                "reason": pa.array(["undecodable_image"] * len(lost), pa.string()),
                "detail": pa.array(["cut off"] * len(lost), pa.string()),
            }
            pq.write_table(pa.table(dropped), folder / f"dropped-{number:05d}.parquet")

    tables.publish(table, write)
    made = manifest.read(table)
    versions = {"raw_pairs": manifest.read(raw).data_version}
    manifest.write(table, made.model_copy(update={"inputs": versions}))
    return table


@pytest.fixture
def scores(tmp_path: Path, raw: Path, rows: list[dict[str, Any]]) -> Path:
    return score_table(tmp_path / "scores", raw, rows)


def run(
    raw: Path, scores: Path, output: Path, **parameters: Any
) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """uid -> score of what was kept, and uid -> row of what was dropped."""
    spec = FilterSpec(
        raw_pairs=raw, clip_scores=scores, output=output, parameters=FilterParameters(**parameters)
    )
    execute(STAGE, spec)
    kept = pq.read_table(manifest.file(output, "kept.parquet")).to_pylist()
    dropped = pq.read_table(manifest.file(output, "dropped.parquet")).to_pylist()
    return {row["uid"]: row["score"] for row in kept}, {row["uid"]: row for row in dropped}


def test_only_scores_strictly_greater_than_the_threshold_are_kept(
    raw: Path, scores: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    kept, dropped = run(raw, scores, tmp_path / "out")
    whole = set(range(ROWS)) - {UNSCORED, UNDECODABLE}
    assert kept.keys() == {rows[place]["uid"] for place in whole if place > 9}
    assert dropped[rows[9]["uid"]]["reason"] == "score_below_threshold"
    assert dropped[rows[9]["uid"]]["score"] == np.float32(0.18)
    assert kept[rows[10]["uid"]] == np.float32(0.2)


def test_every_raw_row_is_kept_or_dropped_for_one_reason(raw: Path, scores: Path, tmp_path: Path) -> None:
    kept, dropped = run(raw, scores, tmp_path / "out", most_urls_per_image=4)
    assert len(kept) + len(dropped) == ROWS
    ledger = manifest.read(tmp_path / "out").ledger
    assert ledger is not None
    assert ledger.balanced
    assert ledger.rows_in == ROWS
    assert ledger.dropped == {
        "placeholder_image": 5, "score_below_threshold": 10, "score_missing": 1, "undecodable_image": 1
    }  # fmt: skip


def test_what_scoring_dropped_keeps_its_reason_and_detail(
    raw: Path, scores: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    _, dropped = run(raw, scores, tmp_path / "out")
    lost = dropped[rows[UNDECODABLE]["uid"]]
    assert (lost["score"], lost["reason"], lost["detail"]) == (None, "undecodable_image", "cut off")
    assert dropped[rows[UNSCORED]["uid"]]["reason"] == "score_missing"


def test_an_image_under_too_many_pairs_is_dropped_across_shards_and_the_rule_can_be_switched_off(
    raw: Path, scores: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    placeholder = {rows[place]["uid"] for place in range(22, 27)}
    kept, dropped = run(raw, scores, tmp_path / "out", most_urls_per_image=4)
    assert {uid for uid, row in dropped.items() if row["reason"] == "placeholder_image"} == placeholder
    assert dropped[rows[22]["uid"]]["detail"] == "stands under 5 URLs"
    for most in (5, None):
        kept, _ = run(raw, scores, tmp_path / "out", most_urls_per_image=most)
        assert placeholder <= kept.keys()


def test_an_image_with_many_captions_under_few_urls_is_no_placeholder(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    described = [
        row | ({"url": rows[22]["url"]} if 22 <= place < 27 else {}) for place, row in enumerate(rows)
    ]
    raw = tables.raw_pairs(tmp_path / "described", described)
    kept, _ = run(
        raw, score_table(tmp_path / "its-scores", raw, rows), tmp_path / "out", most_urls_per_image=1
    )
    assert {rows[place]["uid"] for place in range(22, 27)} <= kept.keys()


def test_another_threshold_filters_anew_from_the_same_scores(raw: Path, scores: Path, tmp_path: Path) -> None:
    before = manifest.read(scores).data_version
    loose, _ = run(raw, scores, tmp_path / "out", threshold=0.1)
    strict, _ = run(raw, scores, tmp_path / "out", threshold=0.4)
    assert strict.keys() < loose.keys()
    assert manifest.read(tmp_path / "out").metrics["threshold"] == 0.4
    assert manifest.read(scores).data_version == before


def test_a_run_is_reproducible_to_the_byte(raw: Path, scores: Path, tmp_path: Path) -> None:
    run(raw, scores, tmp_path / "a")
    run(raw, scores, tmp_path / "b")
    assert manifest.read(tmp_path / "a").data_version == manifest.read(tmp_path / "b").data_version


def test_scores_at_the_edge_are_counted(raw: Path, scores: Path, tmp_path: Path) -> None:
    run(raw, scores, tmp_path / "out")
    metrics = manifest.read(tmp_path / "out").metrics
    assert metrics["within_0.001_of_threshold"] == 1
    assert metrics["scored"] == ROWS - 2
    assert sum(metrics["histogram"]["counts"]) == ROWS - 2


def test_the_histogram_is_published_with_a_small_picture(raw: Path, scores: Path, tmp_path: Path) -> None:
    run(raw, scores, tmp_path / "out")
    thumbnail = manifest.file(tmp_path / "out", "histogram_small.png")
    assert thumbnail.stat().st_size < 30_000
    with Image.open(thumbnail) as small, Image.open(manifest.file(tmp_path / "out", "histogram.png")) as full:
        assert small.width < full.width
        colours = {colour for _, colour in full.convert("RGB").getcolors(1 << 20)}
    assert (0xC1, 0x12, 0x1F) in colours, "the line of the threshold"


def test_scores_of_other_pairs_are_refused(
    raw: Path, rows: list[dict[str, Any]], scores: Path, tmp_path: Path
) -> None:
    other = tables.raw_pairs(tmp_path / "other", rows[:10])
    with pytest.raises(BadInput, match="another version of the raw pairs"):
        run(other, scores, tmp_path / "out")


def test_a_truncated_scores_file_is_named(raw: Path, scores: Path, tmp_path: Path) -> None:
    path = manifest.file(scores, "scores-00001.parquet")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BadInput, match="truncated") as caught:
        run(raw, scores, tmp_path / "out")
    assert caught.value.where == str(path)


def test_an_empty_crawl_gives_an_empty_table(tmp_path: Path) -> None:
    raw = tables.raw_pairs(tmp_path / "raw", [], shards=1)
    scores = tables.publish(tmp_path / "scores", lambda folder: None)
    made = manifest.read(scores)
    manifest.write(scores, made.model_copy(update={"inputs": {"raw_pairs": manifest.read(raw).data_version}}))
    kept, dropped = run(raw, scores, tmp_path / "out")
    assert not kept
    assert not dropped


def truth_of(rows: list[dict[str, Any]], good: set[int]) -> pa.Table:
    return pa.table({
        "url": [row["url"] for row in rows],
        "caption": [row["caption"] for row in rows],
        "is_good": [place in good for place in range(len(rows))],
    })  # fmt: skip


def test_precision_and_recall_are_of_the_kept_and_of_the_good_that_were_given(
    rows: list[dict[str, Any]],
) -> None:
    kept = pa.table({"uid": [rows[place]["uid"] for place in (0, 1, 2, 3)]})
    quality = against_truth(kept, truth_of(rows, {0, 1, 2, 4, 5}))
    assert (quality.precision, quality.recall) == (0.75, 0.6)
    given = [rows[place]["uid"] for place in (0, 1, 2, 3, 4)]
    assert against_truth(kept, truth_of(rows, {0, 1, 2, 4, 5}), given=given).recall == 0.75
    empty = against_truth(pa.table({"uid": pa.array([], pa.string())}), truth_of(rows, set()))
    assert (empty.precision, empty.recall) == (None, None)


def test_a_pair_whose_caption_the_download_cleaned_is_known_in_the_truth() -> None:
    from pipelines.filter.quality import uid_of

    url, caption = "http://127.0.0.1/1.jpg", "a line\nand another"
    kept = pa.table({"uid": [uid_of(url, caption)]})
    truth = pa.table({"url": [url], "caption": [caption], "is_good": [True]})
    assert against_truth(kept, truth).precision == 1.0
