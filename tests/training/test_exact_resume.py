"""No kill, stop or change of ranks changes what a training computes.

Guarantees: killed by SIGKILL at a random step and started again, parameters, optimiser state, schedule, losses and
gradient norms are those of the undisturbed run to the bit, under ZeRO-2 and ZeRO-3, in float32 and in bf16. On another number of ranks, and
under another ZeRO stage, parameters and optimiser state are taken over to the bit. SIGTERM saves and exits with its own
code. A checkpoint is of its data plan and its frozen weights, and holds trained parts only.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from pipelines.errors import BAD_INPUT_EXIT_CODE, INTERRUPTED_EXIT_CODE
from pipelines.training import checkpoint
from pipelines.training.checkpoint import StoredFragments
from tests.training.ranks import SHAPE, STEPS, curve, launch, weights

STAGES = (2, 3)
IN_BF16: dict[str, Any] = {"precision": "bf16"}
"""As on a GPU: weights in bf16, of which the checkpoint's float32 masters must give the same again."""
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "2": (2, {}), "3": (3, {}), "2-bf16": (2, IN_BF16), "3-bf16": (3, IN_BF16),
}  # fmt: skip
"""ZeRO stage, and what else a run is told."""
PROCESSES = (("2", "3"), ("2-bf16",), ("3-bf16",))
"""Kinds that share their processes. A training has processes of its own, and bf16 needs them to give the same bits:
after float32 trainings in one process, ZeRO-2 in bf16 ends with other last bits than alone."""
SAME = ("loss", "gradient_norm", "learning_rate", "supervised_tokens", "loss: toy/en", "loss: toy/zh")


def told(stage: int, **more: Any) -> dict[str, Any]:
    return {"zero_stage": stage, "pack_tokens": 16, "checkpoints_kept": 9, **more}


def optimisation(kind: str) -> dict[str, Any]:
    stage, more = KINDS[kind]
    return told(stage, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two ranks: undisturbed, and killed or stopped at a random step."""
    folder = tmp_path_factory.mktemp("runs")
    for process in PROCESSES:
        logs = folder / f"logs-{process[0]}"
        runs = [{"folder": folder / f"whole-{kind}", "optimisation": optimisation(kind)} for kind in process]
        assert launch(logs, 2, *runs) == [0, 0], (logs / "log-0.txt").read_text()[-3000:]
    for kind in KINDS:
        # After the first checkpoint, so that there is something to go on from.
        kill_at = random.randint(3, STEPS - 1)
        run = {"folder": folder / f"killed-{kind}", "optimisation": optimisation(kind), "kill_at": kill_at}
        assert launch(folder / f"killed-{kind}", 2, run, alone=True)[0] == -9
    for stage in STAGES:
        shutil.copytree(folder / f"killed-{stage}", folder / f"damaged-{stage}")
        for ranks in (1, 3):
            shutil.copytree(folder / f"killed-{stage}", folder / f"killed-{stage}-on-{ranks}")
    return folder


@pytest.fixture(scope="module")
def resumed(folder: Path) -> Path:
    """The killed runs, gone on with by two ranks."""
    newest = max((folder / "damaged-2" / "checkpoints").glob("step-????????"))
    file = newest / "rank-00000.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    for process in PROCESSES:
        logs = folder / f"resumed-{process[0]}"
        runs = [{"folder": folder / f"killed-{kind}", "optimisation": optimisation(kind)} for kind in process]
        if process[0] == "2":
            runs.append({"folder": folder / "damaged-2", "optimisation": told(2)})
        assert launch(logs, 2, *runs) == [0, 0], (logs / "log-0.txt").read_text()[-3000:]
    return folder


def whole(one: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, put together from its ranks' stretches."""
    shapes: dict[str, int] = {}
    for path in one.glob("rank-*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                name, start = key.rsplit(":", 1)
                shapes[name] = max(shapes.get(name, 0), int(start) + file.get_slice(key).get_shape()[0])
    with StoredFragments(one) as stored:
        return {name: stored.read(*name.rsplit(":", 1), 0, length) for name, length in shapes.items()}


def same_tensors(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("run", [*(f"killed-{kind}" for kind in KINDS), "damaged-2"])
def test_a_killed_run_goes_on_to_the_same_bits(run: str, resumed: Path) -> None:
    undisturbed = resumed / f"whole-{run.partition('-')[2]}"
    # The damaged run may have had no other checkpoint: then it starts anew.
    if not run.startswith("damaged"):
        assert "goes on from step" in (resumed / run / "said.txt").read_text()
    assert same_tensors(weights(resumed / run), weights(undisturbed))
    assert [[row.get(key) for key in SAME] for row in curve(resumed / run)] == [
        [row.get(key) for key in SAME] for row in curve(undisturbed)
    ]
    last = sorted((undisturbed / "checkpoints").glob("step-????????"))[-1]
    assert same_tensors(whole(resumed / run / "checkpoints" / last.name), whole(last))
    assert {key.rsplit(":", 1)[1] for key in whole(last)} == {"weight", "exp_avg", "exp_avg_sq"}


def test_a_truncated_checkpoint_is_passed_over_with_a_message(resumed: Path) -> None:
    assert (
        "is passed over: rank-00000.safetensors has 200 bytes" in (resumed / "damaged-2/said.txt").read_text()
    )


@pytest.mark.parametrize("ranks", [1, 3])
def test_another_number_of_ranks_takes_the_state_over_to_the_bit_and_goes_on(
    ranks: int, folder: Path
) -> None:
    runs: list[dict[str, Any]] = []
    for stage in STAGES:
        copy = folder / f"killed-{stage}-on-{ranks}"
        newest = checkpoint.newest(copy / "checkpoints", print)
        # Under the other stage, too.
        for other in (stage, 5 - stage):
            again = folder / f"again-{stage}-{other}-on-{ranks}"
            runs.append({"folder": again, "optimisation": told(other), "save_again": newest})
        runs.append({"folder": copy, "optimisation": told(stage)})
    assert launch(folder / f"on-{ranks}", ranks, *runs) == [0] * ranks, (
        folder / f"on-{ranks}/log-0.txt"
    ).read_text()[-3000:]

    for run in runs:
        if "save_again" in run:
            assert same_tensors(whole(run["folder"] / run["save_again"].name), whole(run["save_again"]))
        else:
            undisturbed = curve(folder / f"whole-{run['optimisation']['zero_stage']}")
            losses = [row["loss"] for row in curve(run["folder"])]
            assert losses == pytest.approx([row["loss"] for row in undisturbed], rel=2e-5)
            norms = [row["gradient_norm"] for row in curve(run["folder"])]
            assert norms == pytest.approx([row["gradient_norm"] for row in undisturbed], rel=2e-4)


def test_sigterm_saves_and_exits_with_its_own_code_and_the_next_start_goes_on(
    resumed: Path, tmp_path: Path
) -> None:
    run = {"folder": tmp_path, "optimisation": told(2)}
    assert launch(tmp_path, 2, {**run, "stop_at": 3}, alone=True) == [INTERRUPTED_EXIT_CODE] * 2
    saved = checkpoint.newest(tmp_path / "checkpoints", print)
    assert saved is not None and int(saved.name[-1]) > 3

    frozen = told(2, learning_rates={"visual": 1e-2})
    runs = [run, {"folder": tmp_path / "frozen", "optimisation": frozen}]
    assert launch(tmp_path, 2, *runs) == [0, 0]
    assert same_tensors(weights(tmp_path), weights(resumed / "whole-2"))

    # Trained parts only.
    kept = sorted((tmp_path / "frozen" / "checkpoints").glob("step-????????"))
    assert all(name.startswith("visual.") for one in kept for name in whole(one))
    assert all(name.startswith("visual.") for name in weights(tmp_path / "frozen"))

    # Refused: another data plan, other frozen weights.
    for more, said in [
        ({"optimisation": {**frozen, "seed": 1}}, "another data plan"),
        ({"optimisation": frozen, "other_frozen_weights": True}, "another frozen weights"),
    ]:
        (tmp_path / "frozen" / "error-0.txt").unlink(missing_ok=True)
        codes = launch(tmp_path, 2, {"folder": tmp_path / "frozen", **more}, alone=True)
        assert codes == [BAD_INPUT_EXIT_CODE] * 2
        assert said in (tmp_path / "frozen" / "error-0.txt").read_text()


def test_checkpoints_are_pruned_by_policy() -> None:
    found = [Path(f"step-{step:08d}") for step in range(1, 10)]
    superfluous = checkpoint._superfluous(found, kept=2, keep_every=4)
    assert [int(one.name[-1]) for one in superfluous] == [1, 2, 3, 5, 6, 7]


def test_the_shape_trains_long_enough_to_be_disturbed() -> None:
    assert SHAPE["checkpoint_every"] < 3 < STEPS
