"""The experts' weights by language that a training notes are the means over the images of that language."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.training.routing import POINTS, Routing, expert_use

GROUPS = ("llava/en", "llava/zh", "share/zh")


def test_weights_are_averaged_over_the_images_of_a_language_over_batches_and_sources() -> None:
    routing = Routing(GROUPS, 2, torch.device("cpu"), steps=5)
    sums = routing.no_sums()
    routing.count(sums, torch.tensor([[1.0, 0.0], [0.2, 0.8]]), torch.tensor([0, 1]))
    routing.count(sums, torch.tensor([[0.6, 0.4]]), torch.tensor([2]))

    found = routing.figures(3, sums.flatten().tolist())

    assert found == pytest.approx(
        {"experts: en/1": 1, "experts: en/2": 0, "experts: zh/1": 0.4, "experts: zh/2": 0.6}
    )


def test_a_language_without_an_image_has_no_figure_and_long_trainings_note_some_steps() -> None:
    routing = Routing(GROUPS, 2, torch.device("cpu"), steps=3 * POINTS)
    sums = routing.no_sums()
    routing.count(sums, torch.tensor([[0.5, 0.5]]), torch.tensor([1]))

    assert set(routing.figures(6, sums.flatten().tolist())) == {"experts: zh/1", "experts: zh/2"}
    assert routing.figures(7, sums.flatten().tolist()) == {}


def test_what_is_published_is_the_end_of_the_training() -> None:
    early, late = [0.0] * 18, [0.4, 0.6]
    columns = {
        "loss": [1.0] * 21,
        "experts: zh/1": [*early, None, *late],
        "experts: zh/2": [*early, *late, None],
    }

    assert expert_use(columns) == {"zh": [0.5, 0.5]}


def test_a_model_without_experts_has_no_routing() -> None:
    assert Routing.of(nn.Linear(2, 2), GROUPS, torch.device("cpu"), 5) is None
