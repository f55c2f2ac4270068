"""A training that is killed and started again ends with the same bits: real torchrun, two ranks, ZeRO-2."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.errors import INTERRUPTED_EXIT_CODE
from pipelines.lake import manifest
from pipelines.launch.local import LocalLauncher
from pipelines.launch.spec import JobSpec, Report
from pipelines.training.spec import PRETRAIN, Optimisation, PretrainSpec
from tests import tables

STEPS = 14


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tables.training_inputs(tmp_path_factory.mktemp("inputs"))


def spec(inputs: dict[str, Path], output: Path) -> PretrainSpec:
    return PretrainSpec(
        output=output,
        processes=2,
        language_model=inputs["language_model"],
        vision=inputs["vision"],
        shards={"week-1": inputs["shards"]},
        pivot_language="en",
        prompts=["Describe the picture."],
        optimisation=Optimisation(
            steps=STEPS, batch_size=8, learning_rates={"visual": 1e-3}, warmup_steps=2, checkpoint_every=4
        ),
    )


def launch(training: PretrainSpec) -> list[Report]:
    reports: list[Report] = []
    LocalLauncher().run(
        JobSpec(name="pretrained", module=PRETRAIN.module, spec=training, distributed=True), reports.append
    )
    return reports


@pytest.fixture(scope="module")
def undisturbed(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    training = spec(inputs, tmp_path_factory.mktemp("undisturbed"))
    launch(training)
    return training.output


def start_and_wait_for_step(training: PretrainSpec, step: int) -> subprocess.Popen[bytes]:
    path = training.output / "spec.json"
    path.write_text(training.model_dump_json())
    process = subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            "-m", PRETRAIN.module, str(path),
        ],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None:
        curves = list(training.output.glob("_work/*/losses.jsonl"))
        if curves and len(curves[0].read_text().splitlines()) > step:
            return process
        time.sleep(0.01)
    raise AssertionError("the training ended before it could be disturbed")


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for torchrun and for its ranks, which have sessions of their own."""
    everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in everyone:
        one.kill()
    psutil.wait_procs(everyone)
    process.wait()


def test_a_run_killed_by_sigkill_ends_bitwise_equal_to_an_undisturbed_one(
    inputs: dict[str, Path], undisturbed: Path, tmp_path: Path
) -> None:
    training = spec(inputs, tmp_path)
    process = start_and_wait_for_step(training, 6)
    kill_all(process)
    assert not manifest.exists(tmp_path)

    reports = launch(training)

    assert any("goes on from step" in report.get("text", "") for report in reports)
    assert manifest.read(tmp_path).data_version == manifest.read(undisturbed).data_version


def test_sigterm_saves_and_exits_with_its_own_code_and_the_next_run_goes_on(
    inputs: dict[str, Path], undisturbed: Path, tmp_path: Path
) -> None:
    training = spec(inputs, tmp_path)
    ends = tmp_path / "ends.jsonl"
    os.environ["PROGRESS_FILE"] = str(ends)
    try:
        process = start_and_wait_for_step(training, 2)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
    finally:
        del os.environ["PROGRESS_FILE"]
    ended = [json.loads(line) for line in ends.read_text().splitlines()]
    assert next(end["code"] for end in ended if end["kind"] == "end") == INTERRUPTED_EXIT_CODE

    launch(training)

    assert manifest.read(tmp_path).data_version == manifest.read(undisturbed).data_version


def test_a_truncated_checkpoint_is_passed_over(
    inputs: dict[str, Path], undisturbed: Path, tmp_path: Path
) -> None:
    training = spec(inputs, tmp_path)
    process = start_and_wait_for_step(training, 9)
    kill_all(process)
    newest = max(tmp_path.glob("_work/*/checkpoints/step-????????"))
    state = next(newest.glob("rank-*.safetensors"))
    state.write_bytes(state.read_bytes()[:100])

    reports = launch(training)

    assert any("passed over" in report.get("text", "") for report in reports)
    assert manifest.read(tmp_path).data_version == manifest.read(undisturbed).data_version


def test_the_frozen_language_model_is_published_unchanged(inputs: dict[str, Path], undisturbed: Path) -> None:
    before = manifest.file(inputs["language_model"], "model.safetensors").read_bytes()
    after = (manifest.folder(undisturbed) / "language_model" / "model.safetensors").read_bytes()

    assert before == after
