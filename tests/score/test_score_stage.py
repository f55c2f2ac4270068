"""Guarantees of the scoring stage, on real tars, real parquet and a real, small Chinese-CLIP."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from models import clip as chinese_clip
from models.clip import ChineseCLIP, cosine
from pipelines.errors import BadInput
from pipelines.foundations.clip.make import config_of
from pipelines.foundations.clip.spec import ClipShape
from pipelines.lake import manifest
from pipelines.lake.identity import pair_uid
from pipelines.score import device as score_device
from pipelines.score import run as score_run
from pipelines.score.feed import ahead
from pipelines.score.spec import STAGE, ScoreParameters, ScoreSpec
from pipelines.stage import execute
from tests import tables

ROOT = Path(__file__).parents[2]
SHAPE = ClipShape(
    vision_layers=1, text_layers=1, vision_width=32, text_width=32, feed_forward=32, projection=16
)
SMALL: dict[str, Any] = {"batch": 4, "chunk": 7, "threads": 1, "device": "cpu"}


def model() -> ChineseCLIP:
    torch.manual_seed(1)
    return ChineseCLIP(chinese_clip.build(config_of(SHAPE)), chinese_clip.bundled_vocabulary())


@pytest.fixture(scope="module")
def clip_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tables.publish(tmp_path_factory.mktemp("clip"), model().save)


def broken(index: int, content: bytes) -> dict[str, Any]:
    url = f"http://127.0.0.1/broken/{index}.jpg"
    return {"uid": pair_uid(url, "x"), "url": url, "caption": "x", "language": "en", "image": content}


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """20 pairs of the world in both languages, one image under two captions, and two that are no images."""
    sound = tables.world_rows(10) + tables.world_rows(10, seed=1, language="zh")
    sound[3] = sound[3] | {"image": sound[0]["image"]}
    return [*sound, broken(0, b"\xff\xd8\xff\xe0 no more of a JPEG"), broken(1, b"<html>not found</html>")]


@pytest.fixture
def raw(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    return tables.raw_pairs(tmp_path / "raw", rows)


def spec(raw: Path, clip_table: Path, output: Path, **changes: Any) -> ScoreSpec:
    return ScoreSpec(raw_pairs=raw, clip=clip_table, output=output, **{**SMALL, **changes})


def scores_of(table: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for path in manifest.files(table, ".parquet"):
        if path.name.startswith("scores-"):
            read = pq.read_table(path)
            found |= dict(zip(read["uid"].to_pylist(), read["score"].to_pylist(), strict=True))
    return found


def test_each_pair_has_the_cosine_of_its_own_image_and_caption(
    raw: Path, clip_table: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    execute(STAGE, spec(raw, clip_table, tmp_path / "scores"))
    found = scores_of(tmp_path / "scores")
    clip = model()
    for row in rows[:20]:
        with Image.open(io.BytesIO(row["image"])) as image:
            expected = cosine(clip.encode([image]), clip.encode_text([row["caption"]])).item()
        assert found[row["uid"]] == pytest.approx(expected, abs=1e-5)


def test_the_ledger_balances_and_what_is_no_image_is_dropped_with_a_reason(
    raw: Path, clip_table: Path, tmp_path: Path
) -> None:
    made = execute(STAGE, spec(raw, clip_table, tmp_path / "scores"))
    assert made.ledger is not None
    assert made.ledger.balanced
    assert (made.ledger.rows_in, made.ledger.kept) == (22, 20)
    assert made.ledger.dropped == {"undecodable_image": 2}
    dropped = [
        row
        for path in manifest.files(tmp_path / "scores", ".parquet")
        if path.name.startswith("dropped-")
        for row in pq.read_table(path).to_pylist()
    ]
    assert len(dropped) == 2
    assert all(row["detail"] for row in dropped)


def test_there_is_one_scores_file_per_raw_shard_with_its_uids_in_order(
    raw: Path, clip_table: Path, tmp_path: Path
) -> None:
    execute(STAGE, spec(raw, clip_table, tmp_path / "scores"))
    lost = {pair_uid(f"http://127.0.0.1/broken/{index}.jpg", "x") for index in range(2)}
    for number in range(3):
        given = pq.read_table(manifest.file(raw, f"pairs-{number:05d}.parquet"))["uid"].to_pylist()
        file = pq.read_table(manifest.file(tmp_path / "scores", f"scores-{number:05d}.parquet"))
        assert file.schema == score_run.SCORES
        assert file["uid"].to_pylist() == [uid for uid in given if uid not in lost]


def test_batches_and_chunks_of_any_size_give_the_same_scores(
    raw: Path, clip_table: Path, tmp_path: Path
) -> None:
    execute(STAGE, spec(raw, clip_table, tmp_path / "a", batch=1, chunk=1))
    execute(STAGE, spec(raw, clip_table, tmp_path / "b", batch=100, chunk=100))
    first, second = scores_of(tmp_path / "a"), scores_of(tmp_path / "b")
    assert first.keys() == second.keys()
    assert all(first[uid] == pytest.approx(second[uid], abs=1e-5) for uid in first)


def test_a_run_that_was_stopped_goes_on_with_the_shards_that_it_lacks(
    raw: Path, clip_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    real = score_run._write_shard

    def stopped_at_the_third(path: Path, *given: Any) -> None:
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(path.name)
        real(path, *given)

    monkeypatch.setattr(score_run, "_write_shard", stopped_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        execute(STAGE, spec(raw, clip_table, tmp_path / "scores"))
    assert not manifest.exists(tmp_path / "scores")
    scored.clear()
    execute(STAGE, spec(raw, clip_table, tmp_path / "scores"))
    assert scored == ["pairs-00002.parquet"]
    monkeypatch.undo()
    execute(STAGE, spec(raw, clip_table, tmp_path / "undisturbed"))
    assert (
        manifest.read(tmp_path / "scores").data_version
        == manifest.read(tmp_path / "undisturbed").data_version
    )


def damaged(raw: Path, name: str, content: bytes) -> Path:
    path = manifest.file(raw, name)
    path.write_bytes(content)
    return path


def test_a_truncated_tar_is_named(raw: Path, clip_table: Path, tmp_path: Path) -> None:
    path = manifest.file(raw, "shard-00001.tar")
    damaged(raw, path.name, path.read_bytes()[:3000])
    with pytest.raises(BadInput, match="tar ends within") as caught:
        execute(STAGE, spec(raw, clip_table, tmp_path / "scores"))
    assert caught.value.where == str(path)


def test_a_tar_with_changed_bytes_is_named_and_not_taken_for_a_bad_image(
    raw: Path, clip_table: Path, tmp_path: Path
) -> None:
    path = manifest.file(raw, "shard-00001.tar")
    content = bytearray(path.read_bytes())
    content[600:700] = bytes(100)
    damaged(raw, path.name, bytes(content))
    with pytest.raises(BadInput, match="corrupt") as caught:
        execute(STAGE, spec(raw, clip_table, tmp_path / "scores"))
    assert caught.value.where == str(path)


def test_a_missing_tar_is_named(raw: Path, clip_table: Path, tmp_path: Path) -> None:
    path = manifest.file(raw, "shard-00002.tar")
    path.unlink()
    with pytest.raises(BadInput, match="missing") as caught:
        execute(STAGE, spec(raw, clip_table, tmp_path / "scores"))
    assert caught.value.where == str(path)


def test_a_truncated_parquet_is_named(raw: Path, clip_table: Path, tmp_path: Path) -> None:
    path = manifest.file(raw, "pairs-00001.parquet")
    damaged(raw, path.name, path.read_bytes()[:-40])
    with pytest.raises(BadInput, match="truncated or damaged") as caught:
        execute(STAGE, spec(raw, clip_table, tmp_path / "scores"))
    assert caught.value.where == str(path)


def test_a_model_folder_without_weights_is_named(raw: Path, tmp_path: Path) -> None:
    lacking = tables.publish(tmp_path / "clip", lambda folder: (folder / "config.json").write_text("{}"))  # type: ignore[arg-type,return-value]
    with pytest.raises(BadInput, match="lacks") as caught:
        execute(STAGE, spec(raw, lacking, tmp_path / "scores"))
    assert caught.value.where == str(manifest.folder(lacking))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_was_asked_for_and_is_absent_is_an_error(
    raw: Path, clip_table: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="a GPU was asked for"):
        execute(STAGE, spec(raw, clip_table, tmp_path / "scores", device="cuda"))


def test_two_ranks_share_the_shards_and_publish_what_one_would(
    raw: Path, clip_table: Path, tmp_path: Path
) -> None:
    alone, shared = (spec(raw, clip_table, tmp_path / name) for name in ("alone", "shared"))
    execute(STAGE, alone)
    (tmp_path / "spec.json").write_text(shared.model_dump_json())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared_environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "pipelines.score", str(tmp_path / "spec.json")],
            cwd=ROOT, env={**shared_environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    assert manifest.read(shared.output).data_version == manifest.read(alone.output).data_version


def test_every_rank_reuses_a_table_that_is_there(
    raw: Path, clip_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = execute(STAGE, spec(raw, clip_table, tmp_path / "scores"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert execute(STAGE, spec(raw, clip_table, tmp_path / "scores")) == made


def test_embeddings_are_kept_row_for_row_with_the_scores_when_asked(
    raw: Path, clip_table: Path, tmp_path: Path
) -> None:
    asked = ScoreParameters(keep_embeddings=True)
    execute(STAGE, spec(raw, clip_table, tmp_path / "scores", parameters=asked))
    for number in range(3):
        file = pq.read_table(manifest.file(tmp_path / "scores", f"scores-{number:05d}.parquet"))
        images, texts = (
            np.load(manifest.file(tmp_path / "scores", f"{kind}-{number:05d}.npy"), mmap_mode="r")
            for kind in ("images", "texts")
        )
        assert images.dtype == texts.dtype == np.float16
        assert images.shape == texts.shape == (file.num_rows, SHAPE.projection)
        cosines = (images.astype(np.float32) * texts.astype(np.float32)).sum(axis=1)
        assert np.abs(cosines - file["score"].to_numpy()).max() < 2e-3


def test_every_score_has_the_perceptual_hash_of_its_image(
    raw: Path, clip_table: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    execute(STAGE, spec(raw, clip_table, tmp_path / "scores"))
    images = {row["uid"]: row["image"] for row in rows}
    for path in manifest.files(tmp_path / "scores", ".parquet"):
        if path.name.startswith("scores-"):
            for row in pq.read_table(path).to_pylist():
                with Image.open(io.BytesIO(images[row["uid"]])) as image:
                    expected = str(imagehash.phash(image))
                assert f"{row['perceptual_hash']:016x}" == expected


def test_the_metrics_say_where_it_ran_and_what_it_waited_for(
    raw: Path, clip_table: Path, tmp_path: Path
) -> None:
    made = execute(STAGE, spec(raw, clip_table, tmp_path / "scores"))
    assert made.metrics["device"] == "cpu"
    assert 0 <= made.metrics["waiting_for_data"] <= 1
    assert made.metrics["teraflops_per_rank"] > 0


def test_a_driver_without_a_usable_gpu_is_an_error_and_not_a_slow_run(
    raw: Path, clip_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    driver = tmp_path / "version"
    driver.write_text("NVRM")
    monkeypatch.setattr(score_device, "_DRIVER", driver)
    with pytest.raises(BadInput, match="cannot use its GPU"):
        execute(STAGE, spec(raw, clip_table, tmp_path / "scores", device="auto"))
    execute(STAGE, spec(raw, clip_table, tmp_path / "scores", device="cpu"))


def test_what_goes_wrong_while_feeding_is_raised_in_its_place_and_the_thread_ends() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise BadInput("broken", where="here", remedy="none")

    got = []
    with pytest.raises(BadInput, match="broken"):
        for item in ahead(items(), 2):
            got.append(item)
    assert got == [0, 1, 2, 3, 4]
    endless = ahead(iter(lambda: 1, 2), 2)
    assert next(endless) == 1
    endless.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "feed"]
