"""The vision foundation: it learns from captions of the pivot language alone, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.vision import VisionConfig
from models.vision_language import make_visual_module
from pipelines.errors import BadInput
from pipelines.foundations.vision.spec import VisionTraining
from pipelines.foundations.vision.train import read_pairs, train_encoder
from pipelines.progress import Progress
from pipelines.world.reference import reference_pairs
from tests import tables


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "pairs.parquet"
    tables.pq.write_table(reference_pairs(40, seed=1, languages=["en", "zh"]), path)
    return path


def train(pairs: Path, steps: int) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    pixels, words = read_pairs(pairs, "en", 32)
    module = make_visual_module(VisionConfig(32, 8, 2, 16, 1, 2), 16, seed=0)
    metrics = train_encoder(
        module, pixels, words, VisionTraining(steps=steps, batch=8), Progress("vision", silent=True)
    )
    return module.state_dict(), metrics


def test_only_pairs_of_the_pivot_language_are_read(pairs: Path) -> None:
    pixels, words = read_pairs(pairs, "en", 32)

    assert pixels.shape == (20, 3, 32, 32)
    assert words.shape[0] == 20
    assert set(words.unique().tolist()) == {0.0, 1.0}


def test_training_lowers_the_loss_and_is_a_function_of_the_seed(pairs: Path) -> None:
    first, early = train(pairs, 20)
    again, _ = train(pairs, 20)
    _, late = train(pairs, 120)

    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert late["final_loss"] < early["final_loss"]


def test_a_language_without_pairs_is_named(pairs: Path) -> None:
    with pytest.raises(BadInput, match="'fr'"):
        read_pairs(pairs, "fr", 32)
