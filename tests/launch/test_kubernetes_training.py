"""Real training on the stand-in cluster: torchrun over two nodes, DeepSpeed ZeRO-2 on the CPU, and what befalls it."""

from __future__ import annotations

import _thread
import json
import math
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.lake import manifest
from pipelines.launch.kubernetes import KubernetesLauncher
from pipelines.launch.spec import Report
from tests.launch.apiserver.cluster import FakeCluster
from tests.launch.conftest import messages
from tests.launch.training_job import job

pytestmark = pytest.mark.slow


def at_step(output: Path, step: int, act: Callable[[], None]) -> threading.Thread:
    """Do something when the training has come to this step."""

    def watch() -> None:
        while steps(output) < step:
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def steps(output: Path) -> int:
    curves = list(output.glob("_work/*/losses.jsonl"))
    return len(curves[0].read_text().splitlines()) if curves else 0


def test_a_training_that_is_preempted_on_one_of_two_nodes_ends_bitwise_equal(
    inputs: dict[str, Path], undisturbed: str, cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    output = tmp_path / "pretrained"
    preemption = at_step(output, 6, lambda: cluster.preempt(1))

    launcher = KubernetesLauncher(cluster.settings(prices={"cpu": 3600.0}))
    usage = launcher.run(job(inputs, output), reports.append)

    preemption.join()
    assert manifest.read(output).data_version == undisturbed
    assert manifest.read(output).metrics["ranks"] == 2
    assert usage.attempts == 2
    words = messages(reports)
    assert "was disrupted (PreemptionByScheduler)" in words
    assert "goes on from step" in words
    # Two cores at one a second; the pods of an attempt start and end some seconds apart.
    assert usage.cost is not None and math.isclose(usage.cost, 2 * usage.running_seconds, abs_tol=20)
    assert usage.goodput is not None and 0 < usage.goodput <= 1
    jobs = cluster.created("Job")
    assert [body["spec"]["completions"] for body in jobs] == [2, 2]


def test_a_cancelled_training_leaves_a_checkpoint_and_nothing_else(
    inputs: dict[str, Path], undisturbed: str, cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    output = tmp_path / "pretrained"
    launcher = KubernetesLauncher(cluster.settings())
    # A process that a shell started in the background ignores SIGINT: as from a terminal, whoever runs this test.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    at_step(output, 2, _thread.interrupt_main)  # Ctrl-C

    try:
        with pytest.raises(KeyboardInterrupt):
            launcher.run(job(inputs, output), reports.append)
    finally:
        signal.signal(signal.SIGINT, before)

    assert cluster.left() == []
    assert cluster.pods() == []
    assert not cluster.kubelet.processes
    newest = max(output.glob("_work/*/checkpoints/step-????????"))
    assert json.loads((newest / "complete.json").read_text())["step"] >= 2
    assert not manifest.exists(output)

    again: list[Report] = []
    KubernetesLauncher(cluster.settings()).run(job(inputs, output), again.append)
    assert "goes on from step" in messages(again)
    assert manifest.read(output).data_version == undisturbed
