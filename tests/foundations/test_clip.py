"""Guarantees of the Chinese-CLIP's stage: a few steps of real training, and given weights."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.nn import functional

from models import clip as chinese_clip
from models import weights
from models.clip import ChineseCLIP
from pipelines.errors import BadInput
from pipelines.foundations.clip import data
from pipelines.foundations.clip.losses import WordHead, matching_loss
from pipelines.foundations.clip.make import config_of
from pipelines.foundations.clip.spec import STAGE, ClipParameters, ClipShape, ClipSpec, ClipTraining
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.stage import execute
from pipelines.world.reference import reference_pairs
from tests import tables

SHAPE = ClipShape(
    vision_layers=1, text_layers=1, vision_width=64, text_width=64, feed_forward=64, projection=32
)
TRAINING = ClipTraining(image_steps=4, steps=8, batch=16, warmup_steps=2)


def write_reference(folder: Path) -> None:
    (folder / "reference").mkdir()
    pq.write_table(reference_pairs(64, seed=1, languages=["en", "zh"]), folder / "reference/pairs.parquet")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tables.publish(tmp_path_factory.mktemp("world"), write_reference)


def spec(world: Path, output: Path, **training: float) -> ClipSpec:
    parameters = ClipParameters(shape=SHAPE, training=TRAINING.model_copy(update=training))
    return ClipSpec(world=world, output=output, parameters=parameters, threads=1)


def test_the_trained_folder_is_a_chinese_clip_that_loads(world: Path, tmp_path: Path) -> None:
    made = execute(STAGE, spec(world, tmp_path / "clip"))
    assert {Path(file.path).name for file in made.files} == {
        "config.json", "model.safetensors", "vocab.txt", "preprocessor_config.json"
    }  # fmt: skip
    clip = chinese_clip.load(manifest.folder(tmp_path / "clip"))
    embedding = clip.encode([Image.new("RGB", (96, 96))])
    assert embedding.shape == (1, SHAPE.projection)
    assert math.isfinite(made.metrics["loss"])
    assert made.metrics["pairs"] == 64


def test_the_same_seed_trains_the_same_weights_and_another_seed_others(world: Path, tmp_path: Path) -> None:
    versions = [
        execute(STAGE, spec(world, tmp_path / name, seed=seed)).data_version
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert versions[0] == versions[1] != versions[2]


def test_training_lowers_the_loss(world: Path, tmp_path: Path) -> None:
    made = execute(STAGE, spec(world, tmp_path / "clip", image_steps=0, steps=30))
    losses = made.metrics["losses"]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_training_leaves_words_that_no_pair_has_as_they_were(world: Path, tmp_path: Path) -> None:
    execute(STAGE, spec(world, tmp_path / "clip"))
    torch.manual_seed(TRAINING.seed)
    before = chinese_clip.build(config_of(SHAPE)).state_dict()
    after = chinese_clip.load(manifest.folder(tmp_path / "clip")).network.state_dict()
    name = "text_model.embeddings.word_embeddings.weight"
    changed = (before[name] != after[name]).any(dim=1).nonzero().flatten()
    assert 20 < len(changed) < 400
    assert 0 not in changed, "padding"


def test_a_loss_that_is_not_finite_ends_the_stage_and_publishes_nothing(world: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the loss of step"):
        execute(STAGE, spec(world, tmp_path / "clip", learning_rate=1e30, gradient_clip=1e30))
    assert not manifest.exists(tmp_path / "clip")


def test_a_world_without_reference_pairs_is_refused(tmp_path: Path) -> None:
    world = tables.publish(tmp_path / "world", lambda folder: None)
    with pytest.raises(BadInput, match=r"no reference/pairs\.parquet"):
        execute(STAGE, spec(world, tmp_path / "clip"))


def test_given_weights_are_brought_into_the_lake_unchanged(tmp_path: Path) -> None:
    torch.manual_seed(7)
    clip = ChineseCLIP(chinese_clip.build(config_of(SHAPE)), chinese_clip.bundled_vocabulary())
    clip.save(tmp_path / "given")
    given = ClipParameters(weights=str(tmp_path / "given"), sha256=weights.digest(tmp_path / "given"))
    execute(STAGE, ClipSpec(output=tmp_path / "clip", parameters=given))
    assert weights.digest(manifest.folder(tmp_path / "clip")) == given.sha256


def test_given_weights_of_another_digest_or_place_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(7)
    clip = ChineseCLIP(chinese_clip.build(config_of(SHAPE)), chinese_clip.bundled_vocabulary())
    clip.save(tmp_path / "given")
    wrong = ClipParameters(weights=str(tmp_path / "given"), sha256="0" * 64)
    with pytest.raises(BadInput, match="is pinned"):
        execute(STAGE, ClipSpec(output=tmp_path / "clip", parameters=wrong))
    nowhere = ClipParameters(weights=str(tmp_path / "nothing"))
    with pytest.raises(BadInput, match="no such model file or folder"):
        execute(STAGE, ClipSpec(output=tmp_path / "clip", parameters=nowhere))


def test_a_spec_without_a_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give `world`"):
        ClipSpec(output=tmp_path)


def test_every_pair_comes_once_before_any_comes_again(world: Path) -> None:
    clip = ChineseCLIP(chinese_clip.build(config_of(SHAPE)), chinese_clip.bundled_vocabulary())
    path = manifest.files(world, "reference/pairs.parquet")[0]
    pairs = data.read(path, clip, Progress("clip", silent=True))
    steps = list(data.batches(pairs, TRAINING, 4))
    seen = {tuple(row.tolist()) for batch in steps for row in batch.captions}
    assert len(seen) == len({tuple(row.tolist()) for row in pairs.captions})
    captions = [pairs.pieces[pairs.captions[0]].tolist()]
    expected = clip.ids(pq.read_table(path)["caption"][0].as_py())
    assert captions[0][: len(expected)] == expected


def test_the_loss_equals_its_formula() -> None:
    """Literal sums over pairs, for 3 pairs with 2 negatives each and one blank image."""
    torch.manual_seed(0)
    size, negatives_each = 3, 2
    images, captions, negatives = (
        functional.normalize(torch.randn(count, 8), dim=1)
        for count in (size + 1, size, size * negatives_each)
    )
    training = ClipTraining(calibration_weight=0.7, calibration_scale=11, threshold=0.18, fitting_weight=1.5)
    scale = 9.0
    texts = [*captions, *negatives]

    def softplus(value: float) -> float:
        return math.log1p(math.exp(value))

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def cos(image: int, text: torch.Tensor) -> float:
        return float(images[image] @ text)

    to_text = [
        -math.log(math.exp(scale * cos(i, captions[i])) / sum(math.exp(scale * cos(i, t)) for t in texts))
        for i in range(size)
    ]
    to_image = [
        -math.log(
            math.exp(scale * cos(i, captions[i]))
            / sum(math.exp(scale * cos(j, captions[i])) for j in range(size + 1))
        )
        for i in range(size)
    ]
    slope = 11.0
    fitting = [softplus(-slope * (cos(i, captions[i]) - 0.18)) for i in range(size)]
    own = [softplus(slope * (cos(i // 2, negatives[i]) - 0.18)) for i in range(size * negatives_each)]
    others = [
        softplus(slope * (cos(j, captions[i]) - 0.18)) for i in range(size) for j in range(size + 1) if i != j
    ]
    blank = [softplus(slope * (cos(size, text) - 0.18)) for text in texts]
    expected = (mean(to_text) + mean(to_image)) / 2 + 0.7 * (
        1.5 * mean(fitting) + mean(own) + mean(others) + mean(blank)
    )
    found = matching_loss(images, captions, negatives, torch.tensor(scale), training)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_a_word_in_every_text_and_padding_count_for_nothing() -> None:
    head = WordHead(4, torch.tensor([[1, 2, 0], [1, 3, 0]]), pieces=4)
    assert head.weight[0] == head.weight[1] == 0
    assert head.weight[2] == pytest.approx(math.log(2))


def test_blank_images_are_made_from_the_generator_alone() -> None:
    first, second = (data.blanks(5, 48, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.shape == (5, 48, 48, 3)
