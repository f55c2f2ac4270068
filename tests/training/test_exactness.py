"""What DeepSpeed computes is what plain PyTorch computes, and no stop, kill or change of ranks changes it.

Real ranks (gloo on a CPU) under torchrun, real DeepSpeed, real SIGKILL.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.training.order import make_order
from pipelines.training.plan import make_plan
from pipelines.training.samples import collate, measure
from pipelines.training.schedule import cosine_share
from pipelines.training.spec import Optimisation
from tests.training.ranks import SHAPE, curve, launch, weights
from tests.training.toy import Toy, ToySamples

POISON = 32
NO_GRADIENT = "qkv.bias"
"""A third of it shifts all of a row's scores alike: its gradient is rounding, which Adam blows up."""


def in_plain_pytorch(
    optimisation: Optimisation, *, experts: bool
) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    """Losses, gradient norms and weights of a training written out: one batch, padded rows, no ranks."""
    model, samples = Toy(experts=experts).train(), ToySamples()
    order = make_order({"all": np.arange(len(samples))}, None, optimisation.seed)
    rates = optimisation.learning_rates
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in rates)
    optimizer = torch.optim.AdamW(
        [{"params": list(getattr(model, part).parameters()), "lr": rate} for part, rate in rates.items()],
        betas=optimisation.betas, weight_decay=optimisation.weight_decay,
    )  # fmt: skip
    losses, norms = [], []
    for step in range(optimisation.steps):
        share = cosine_share(step, optimisation.steps, warmup=optimisation.warmup_steps, final=0.02)
        for group, rate in zip(optimizer.param_groups, rates.values(), strict=True):
            group["lr"] = rate * share
        draws = order.batch(step, optimisation.batch_size)
        batch = collate(
            [samples.sample(sample, epoch) for epoch, sample in draws], pad=0, groups=("toy/en", "toy/zh")
        )
        loss = model(batch.ids, batch.labels, batch.pixels).mean()
        loss.backward()
        norms.append(
            float(torch.nn.utils.clip_grad_norm_(model.parameters(), optimisation.gradient_clipping))
        )
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, norms, {name: value.detach() for name, value in model.named_parameters()}


LANGUAGE_ONLY = {"learning_rates": {"language_model": 3e-3}}
CASES: dict[str, dict[str, Any]] = {
    f"stage {stage}, {rows} rows": {"optimisation": {"zero_stage": stage, "pack_tokens": tokens}}
    for stage, rows, tokens in [(0, 1, 96), (0, 3, 16), (1, 3, 16), (2, 1, 96), (2, 3, 16), (3, 1, 96), (3, 3, 16)]
} | {
    # No parameter is small enough to stay: each is fetched by all ranks together, whatever their rows hold.
    "stage 3, every weight fetched": {
        "persistent": 0, "held_out": True, "optimisation": {"zero_stage": 3, "pack_tokens": 16},
    },
    "stage 3, every weight fetched, experts": {
        "persistent": 0, "experts": True, "optimisation": {"zero_stage": 3, "pack_tokens": 16},
    },
    "stage 3, every weight fetched, frozen visual module": {
        "persistent": 0, "optimisation": {"zero_stage": 3, "pack_tokens": 16, **LANGUAGE_ONLY},
    },
    "stage 2, experts": {"experts": True, "optimisation": {"zero_stage": 2, "pack_tokens": 16}},
    "stage 2, frozen visual module": {"optimisation": {"zero_stage": 2, "pack_tokens": 16, **LANGUAGE_ONLY}},
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case, trained by two ranks one after another."""
    folder = tmp_path_factory.mktemp("trained")
    runs = [{"folder": folder / name, **told} for name, told in CASES.items()]
    assert launch(folder, 2, *runs) == [0, 0], (folder / "log-0.txt").read_text()[-3000:]
    return folder


@pytest.mark.parametrize("name", CASES)
def test_every_zero_stage_gives_the_norms_and_weights_of_plain_pytorch(name: str, trained: Path) -> None:
    case = CASES[name]
    losses, norms, expected = in_plain_pytorch(
        Optimisation(**{**SHAPE, **case["optimisation"]}), experts=case.get("experts", False)
    )

    rows = curve(trained / name)

    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=5e-5)
    assert [row["gradient_norm"] for row in rows] == pytest.approx(norms, rel=5e-4)
    for parameter, value in weights(trained / name).items():
        if not parameter.endswith(NO_GRADIENT):
            assert torch.allclose(value, expected[parameter], atol=5e-4), parameter


def test_a_rank_without_a_held_out_sample_takes_part_in_measuring_the_others(trained: Path) -> None:
    folder = trained / "stage 3, every weight fetched"
    told = json.loads((folder / "metrics.json").read_text())
    toy = Toy().eval()
    for name, value in weights(folder).items():
        toy.get_parameter(name).data = value
    sample = ToySamples().sample(0, 0)
    with torch.no_grad():
        batch = collate([sample], pad=0, groups=("toy/en",))
        losses = toy(batch.ids, batch.labels, batch.pixels)

    # Measured before the last step, so a little apart from the final weights'.
    assert told["likelihood: en"] == pytest.approx(-losses.mean().item(), rel=0.05)


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings in which a token makes the loss no number."""
    folder = tmp_path_factory.mktemp("poisoned")
    runs = [
        {
            "folder": folder / f"{policy}-{stage}", "poison": POISON,
            "optimisation": {"zero_stage": stage, "not_finite": policy, "most_skipped": 9, "steps": 8},
        }
        for policy in ("stop", "skip") for stage in (0, 2, 3)
    ]  # fmt: skip
    assert launch(folder, 2, *runs) == [0, 0], (folder / "log-0.txt").read_text()[-3000:]
    return folder


def poisoned_steps(steps: int) -> list[int]:
    samples = ToySamples()
    order = make_order({"all": np.arange(len(samples))}, None, 0)
    return [
        step
        for step in range(steps)
        if any(POISON in samples.text(one, epoch)[0].ids for epoch, one in order.batch(step, 8))
    ]


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_no_step_is_taken_with_a_gradient_that_is_no_number(stage: int, poisoned: Path) -> None:
    wrong = poisoned_steps(8)
    assert 0 < len(wrong) < 8

    said = (poisoned / f"stop-{stage}" / "error-0.txt").read_text()
    assert f"gradient of step {wrong[0]} is no finite number" in said
    assert len(curve(poisoned / f"stop-{stage}")) == wrong[0]

    skipped = poisoned / f"skip-{stage}"
    assert json.loads((skipped / "metrics.json").read_text())["skipped_steps"] == len(wrong)
    assert all(torch.isfinite(value).all() for value in weights(skipped).values())


def test_text_only_rows_stood_beside_rows_with_images(trained: Path) -> None:
    samples = ToySamples()
    order = make_order({"all": np.arange(len(samples))}, None, 0)
    plan = make_plan(order, measure(samples), steps=6, batch_size=8, pack_tokens=16, multiple=2)
    mixed = 0
    for step in range(plan.steps):
        left, right = (plan.share(step, rank, 2) for rank in range(2))
        mixed += sum(bool(one.images) != bool(two.images) for one, two in zip(left, right, strict=False))
    assert mixed


def test_a_frozen_weight_that_changed_stops_the_training_before_it_publishes(tmp_path: Path) -> None:
    """By the smallest step that a number can take, at any ZeRO stage; untouched, the same trainings end well."""
    runs = [
        {
            "folder": tmp_path / f"{stage}-{'touched' if touched else 'whole'}",
            "optimisation": {"zero_stage": stage, "learning_rates": {"visual": 1e-2}, "steps": 3},
            **({"touch_at": 2} if touched else {}),
        }
        for stage in (0, 2, 3) for touched in (True, False)
    ]  # fmt: skip
    assert launch(tmp_path, 2, *runs) == [0, 0], (tmp_path / "log-0.txt").read_text()[-3000:]

    for run in runs:
        said = [(run["folder"] / f"error-{rank}.txt") for rank in range(2)]
        if "touch_at" in run:
            assert ["a frozen weight changed" in path.read_text() for path in said] == [True, True]
            assert not (run["folder"] / "weights.safetensors").exists()
        else:
            assert not any(path.exists() for path in said)
            assert weights(run["folder"]).keys()
