"""The scoring stage against cn_clip, end to end: equal weights, odd image files and captions, equal decisions at 0.18."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cn_clip.clip
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from cn_clip.clip.model import CLIP
from cn_clip.clip.utils import image_transform
from PIL import Image, ImageDraw

from pipelines.filter.run import MARGIN
from pipelines.filter.spec import STAGE as FILTER
from pipelines.filter.spec import FilterParameters, FilterSpec
from pipelines.foundations.clip.spec import STAGE as CLIP_STAGE
from pipelines.foundations.clip.spec import ClipParameters, ClipSpec
from pipelines.lake import manifest
from pipelines.lake.identity import pair_uid
from pipelines.score.spec import STAGE, ScoreParameters, ScoreSpec
from pipelines.stage import execute
from tests import tables

SIDE = 48
THRESHOLD = 0.18
CAPTIONS = [
    "两个红色圆形在一个大的蓝色正方形的左边", "one big blue square", "点击这里查看更多图片。" * 10, "a", "…！？",
    "Ünïcödé cäptïon with accents", "emoji 😀🎉 and \u202e right-to-left \u202c marks", "[SEP] [CLS] [PAD]",
    "ＦＵＬＬ　ｗｉｄｔｈ", "x" * 300, "tab\tand  many   spaces", "مربع أزرق", "㐀\U00020000 rare characters",
]  # fmt: skip


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def odd_files() -> dict[str, bytes]:
    """Image files of the kinds on which preprocessings differ."""
    noise = np.random.default_rng(5).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    rgb = Image.fromarray(noise)
    ImageDraw.Draw(rgb).ellipse((5, 5, 40, 40), fill=(200, 30, 30))
    alpha = rgb.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray((np.arange(60 * 40, dtype=np.uint16) * 27).reshape(40, 60))
    palette = rgb.quantize(16)
    return {
        "rgb jpeg": encoded(rgb, "JPEG"),
        "palette png": encoded(palette, "PNG"),
        "palette with transparency": encoded(palette, "PNG", transparency=3),
        "gif": encoded(palette, "GIF"),
        "alpha png": encoded(alpha, "PNG"),
        "alpha webp": encoded(alpha, "WEBP"),
        "grey with alpha": encoded(alpha.convert("LA"), "PNG"),
        "cmyk jpeg": encoded(rgb.convert("CMYK"), "JPEG"),
        "grey jpeg": encoded(rgb.convert("L"), "JPEG"),
        "one bit": encoded(rgb.convert("1"), "PNG"),
        "rotated by exif": encoded(rgb, "JPEG", exif=exif),
        "one pixel wide": encoded(rgb.resize((1, 300)), "PNG"),
        "one pixel": encoded(rgb.resize((1, 1)), "PNG"),
        "16 bit": encoded(deep, "PNG"),
        "already square": encoded(rgb.resize((SIDE, SIDE)), "PNG"),
    }


@pytest.fixture(scope="module")
def reference() -> CLIP:
    """cn_clip's own network, small, whose scores of the fixture lie on both sides of the threshold."""
    torch.manual_seed(3)
    model = CLIP(
        embed_dim=32, image_resolution=SIDE, vision_layers=2, vision_width=128, vision_patch_size=12,
        vocab_size=21128, text_attention_probs_dropout_prob=0.1, text_hidden_act="gelu",
        text_hidden_dropout_prob=0.1, text_hidden_size=128, text_initializer_range=0.02,
        text_intermediate_size=256, text_max_position_embeddings=64, text_num_attention_heads=2,
        text_num_hidden_layers=2, text_type_vocab_size=2,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def clip_table(reference: CLIP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights, brought in by the stage that does so from a checkpoint of cn_clip."""
    folder = tmp_path_factory.mktemp("weights")
    state = OrderedDict((f"module.{name}", value) for name, value in reference.state_dict().items())
    torch.save({"epoch": 1, "name": "test", "state_dict": state}, folder / "clip_cn_small.pt")
    weights = ClipParameters(weights=str(folder / "clip_cn_small.pt"))
    execute(CLIP_STAGE, ClipSpec(output=folder / "clip", parameters=weights, threads=1))
    return folder / "clip"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Every file with every caption."""
    return [
        {
            "uid": pair_uid(f"http://127.0.0.1/{name}/{number}", caption), "language": "zh",
            "url": f"http://127.0.0.1/{name}/{number}", "caption": caption, "image": content,
        }
        for name, content in odd_files().items()
        for number, caption in enumerate(CAPTIONS)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def expected(reference: CLIP, rows: list[dict[str, Any]]) -> dict[str, float]:
    """uid -> cosine, one pair at a time, as cn_clip's README does it."""
    transform = image_transform(SIDE)
    found = {}
    with torch.no_grad():
        for row in rows:
            with Image.open(io.BytesIO(row["image"])) as image:
                seen = reference.encode_image(transform(image)[None])
            read = reference.encode_text(cn_clip.clip.tokenize([row["caption"]]))
            seen, read = seen / seen.norm(dim=-1, keepdim=True), read / read.norm(dim=-1, keepdim=True)
            found[row["uid"]] = (seen @ read.T).item()
    return found


def scored(folder: Path, rows: list[dict[str, Any]], clip: Path, precision: str) -> dict[str, float]:
    raw = tables.raw_pairs(folder / "raw", rows)
    spec = ScoreSpec(
        raw_pairs=raw, clip=clip, output=folder / "scores", device="cpu", threads=1, batch=16, chunk=64,
        parameters=ScoreParameters(precision=precision),  # type: ignore[arg-type]
    )  # fmt: skip
    execute(STAGE, spec)
    files = [path for path in manifest.files(folder / "scores", ".parquet") if path.name.startswith("scores")]
    read = [row for path in files for row in pq.read_table(path).to_pylist()]
    return {row["uid"]: row["score"] for row in read}


def test_scores_differ_by_less_than_1e_4_and_no_decision_flips_outside_the_band(
    rows: list[dict[str, Any]], expected: dict[str, float], clip_table: Path, tmp_path: Path
) -> None:
    found = scored(tmp_path, rows, clip_table, "float32")
    assert found.keys() == expected.keys()
    scores = np.array(list(expected.values()))
    assert scores.std() > 0.02 and (scores > THRESHOLD).any() and (scores < THRESHOLD).any()
    assert max(abs(found[uid] - score) for uid, score in expected.items()) < 1e-4
    flipped = [uid for uid, score in expected.items() if (score > THRESHOLD) != (found[uid] > THRESHOLD)]
    assert all(abs(expected[uid] - THRESHOLD) <= MARGIN for uid in flipped)


def test_the_filter_reports_how_many_pairs_lie_inside_the_band(
    rows: list[dict[str, Any]], expected: dict[str, float], clip_table: Path, tmp_path: Path
) -> None:
    # A threshold that is some pair's score: the band is not empty.
    threshold = sorted(expected.values())[len(expected) // 2]
    scored(tmp_path, rows, clip_table, "float32")
    made = execute(
        FILTER,
        FilterSpec(
            raw_pairs=tmp_path / "raw", clip_scores=tmp_path / "scores", output=tmp_path / "filtered",
            parameters=FilterParameters(threshold=threshold, most_urls_per_image=None),
        ),
    )  # fmt: skip
    inside = sum(abs(score - threshold) <= MARGIN for score in expected.values())
    assert inside >= 1
    assert abs(made.metrics[f"within_{MARGIN:g}_of_threshold"] - inside) <= 1


def test_bfloat16_scores_stay_near_those_of_float32(
    rows: list[dict[str, Any]], expected: dict[str, float], clip_table: Path, tmp_path: Path
) -> None:
    found = scored(tmp_path, rows, clip_table, "bfloat16")
    assert max(abs(found[uid] - score) for uid, score in expected.items()) < 0.03
