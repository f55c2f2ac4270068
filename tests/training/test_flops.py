"""What a step costs, with frozen parts counted as what they need."""

from __future__ import annotations

from pipelines.training.engine import freeze_and_group
from pipelines.training.flops import image_positions, step_cost
from pipelines.training.spec import Optimisation
from tests.training.toy import QUERIES, SIZE, VOCABULARY, Toy


def matrices(toy: Toy) -> tuple[int, int]:
    """Weights of the language model's layers, and of the visual module, in matrices."""
    body = sum(
        one.numel()
        for name, one in toy.language_model.named_parameters()
        if one.ndim >= 2 and "embed" not in name
    )
    return body, sum(one.numel() for one in toy.visual.parameters() if one.ndim >= 2)


def cost_of(rates: dict[str, float]) -> tuple[Toy, float, float, float]:
    toy = Toy()
    freeze_and_group(toy, Optimisation(steps=1, learning_rates=rates))
    cost = step_cost(toy)
    return toy, cost.per_token, cost.per_supervised_token, cost.per_image


def test_a_frozen_language_model_behind_a_trained_visual_module_costs_4n_and_a_trained_one_6n() -> None:
    positions = (SIZE // 8) ** 2 + QUERIES
    toy, token, head, image = cost_of({"visual": 1e-3})
    body, visual = matrices(toy)
    table = VOCABULARY * 16
    assert image_positions(toy) == positions
    assert (token, head) == (4 * body, 4 * table)

    _, token, head, image_trained = cost_of({"visual": 1e-3, "language_model": 1e-3})
    assert (token, head) == (6 * body, 6 * table)
    assert image == image_trained == 6 * visual * positions

    _, token, _, image = cost_of({"language_model": 1e-3})
    assert token == 6 * body
    assert image == 2 * visual * positions
