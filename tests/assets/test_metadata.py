"""Guarantees of what Dagster shows of a table."""

from __future__ import annotations

import base64
import io
import json
import math
import random
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from assets import metadata
from pipelines.lake.manifest import Manifest, TableFile

SPECIAL = set("|<>\n`[]*_!#")


@given(st.text())
def test_escaped_text_is_one_line_and_holds_no_live_markup(text: str) -> None:
    escaped = metadata.escape(text)
    for position, character in enumerate(escaped):
        if character in SPECIAL - {"#"}:
            assert escaped[position - 1 : position] == "\\", escaped
    assert len(escaped.splitlines()) <= 1


@pytest.mark.parametrize(
    "attack", ["<script>alert(1)</script>", "[x](javascript:alert(1))", "![x](http://e/p.png)"]
)
def test_crawled_markup_is_shown_and_not_obeyed(attack: str) -> None:
    shown = str(metadata.of_metrics({"samples": [{"caption": attack}]})["samples"].value)
    assert (
        attack not in shown
        and "<script" not in shown
        and "](" not in shown.replace("\\](", "").replace("\\]\\(", "")
    )


def test_every_metric_can_be_stored_and_read_back() -> None:
    metrics = {
        "rate": 0.5, "steps": 3, "fits": True, "name": "zh", "lost": math.nan,
        "curve": [3.0, math.nan, 2.0, 1.0], "gone": [math.nan] * 5,
        "by language": {"en": 0.5, "zh": math.inf}, "deep": {"a": {"b": [1.0, math.nan]}}, "empty": [],
    }  # fmt: skip
    shown = metadata.of_metrics(metrics)
    event = dg.AssetMaterialization("a", metadata=shown)
    text = dg.serialize_value(event)
    assert "NaN" not in text and "Infinity" not in text
    json.loads(text)
    assert shown["by language/en"].value == 0.5
    assert isinstance(shown["steps"], dg.IntMetadataValue)


def test_a_large_plot_is_shown_as_a_thumbnail_with_its_path(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(900 * 700 * 3)
    Image.frombytes("RGB", (900, 700), noise).save(tmp_path / "histogram.png")
    file = TableFile(path="histogram.png", sha256="0" * 64, bytes=1, rows=None)
    manifest = Manifest(
        stage="s", code_version="1", fingerprint="f", parameters={}, inputs={}, files=[file],
        created="now", seconds=1.0, metrics={"histogram": {"counts": [1, 2]}, "scored": 3},
    )  # fmt: skip
    of_table = metadata.of_table(tmp_path, manifest, reused=False)
    assert "scored" in of_table and not any(name.startswith("histogram") for name in of_table), (
        "drawn already"
    )
    shown = str(of_table["plot: histogram"].value)
    encoded = shown.split("base64,")[1].split(")")[0]
    picture = base64.b64decode(encoded)
    assert len(picture) <= metadata.INLINE_BYTES
    with Image.open(io.BytesIO(picture)) as thumbnail:
        assert thumbnail.width >= 200
    assert "histogram.png" in shown.replace("\\", "")


def test_a_training_shows_its_loss_curve_from_first_to_last(tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.mkdir()
    pq.write_table(pa.table({"loss": [4.0 - step / 1000 for step in range(3000)]}), table / "losses.parquet")
    manifest = Manifest(
        stage="s", code_version="1", fingerprint="f", parameters={}, inputs={},
        files=[TableFile(path="losses.parquet", sha256="0" * 64, bytes=1)], created="now", seconds=1.0,
    )  # fmt: skip
    shown = str(metadata.of_table(table, manifest, reused=False)["plot: loss"].value)
    drawn = base64.b64decode(shown.split("base64,")[1].rstrip(")")).decode()
    points = drawn.split('<polyline points="')[1].split('"')[0]
    heights = [float(point.split(",")[1]) for point in points.split()]
    assert 100 < len(heights) <= 240
    assert heights == sorted(heights), "a falling loss is drawn falling"
    assert len(shown) < metadata.INLINE_BYTES


def test_a_training_shows_its_losses_by_language_and_the_pivot_gap(tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.mkdir()
    steps = list(range(20))
    columns = {
        "loss": steps, "gradient_norm": steps, "loss: crawl/en": steps, "supervised_tokens": steps,
        "pivot gap: zh": [step if step % 4 == 0 else None for step in steps],
    }  # fmt: skip
    pq.write_table(pa.table(columns), table / "losses.parquet")
    manifest = Manifest(
        stage="s", code_version="1", fingerprint="f", parameters={}, inputs={},
        files=[TableFile(path="losses.parquet", sha256="0" * 64, bytes=1)], created="now", seconds=1.0,
    )  # fmt: skip
    shown = metadata.of_table(table, manifest, reused=False)
    plots = {name for name in shown if name.startswith("plot: ")}
    assert plots == {"plot: loss", "plot: gradient_norm", "plot: loss: crawl/en", "plot: pivot gap: zh"}
    drawn = base64.b64decode(str(shown["plot: pivot gap: zh"].value).split("base64,")[1].rstrip(")")).decode()
    assert len(drawn.split('<polyline points="')[1].split('"')[0].split()) == 5
