"""Work whose tables lie in an object store, in pods that share no disk: what one pod leaves, another goes on from."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from pipelines.lake import location, manifest
from pipelines.launch import naming
from pipelines.launch.accounting import kept_files
from pipelines.launch.kubernetes import KubernetesLauncher
from pipelines.launch.spec import JobSpec, Report, Resources
from pipelines.score.spec import STAGE, ScoreParameters, ScoreSpec
from pipelines.stage import execute
from tests import object_store, tables
from tests.assets.toy_stage import ToySpec
from tests.lake.conftest import s3, s3_endpoint  # noqa: F401 - fixtures
from tests.launch.apiserver.cluster import FakeCluster
from tests.launch.conftest import messages
from tests.launch.training_job import job

pytestmark = pytest.mark.slow
PARTS = Resources(cpus=1, memory="2Gi", scratch="1Gi", shared_memory="64Mi", parts=2)


@pytest.fixture
def store(cluster: FakeCluster, s3: Path, s3_endpoint: str) -> dict[str, Any]:  # noqa: F811
    """Settings with which pods reach the object store: its keys come from a secret."""
    cluster.add("Secret", "secrets", "store", data=object_store.ENVIRONMENT)
    return {
        "secrets": {"gpu": ["store"], "data": ["store"]},
        "environment": {"OMP_NUM_THREADS": "1", "AWS_ENDPOINT_URL": s3_endpoint},
    }


def unpublished(table: Path) -> list[Path]:
    return list(location.listing(table / "_work"))


def test_a_training_goes_on_in_pods_that_never_saw_the_disk_of_those_that_were_lost(
    inputs: dict[str, Path], undisturbed: str, cluster: FakeCluster, s3: Path, store: dict[str, Any],  # noqa: F811
    reports: list[Report],
) -> None:  # fmt: skip
    output = s3 / "pretrained"
    lost = threading.Event()

    def watch(report: Report) -> None:
        reports.append(report)
        # A node goes without a word, after the second checkpoint: nothing is saved on its account.
        if report["kind"] == "progress" and report["done"] > 8 and not lost.is_set():
            lost.set()
            cluster.lose_node(1)

    usage = KubernetesLauncher(cluster.settings(**store)).run(job(inputs, output), watch)

    made = manifest.read(output)
    assert made.data_version == undisturbed
    assert made.metrics["ranks"] == 2
    assert usage.attempts == 2
    assert "goes on from step" in messages(reports)
    assert unpublished(output) == []


def test_what_a_disrupted_download_left_in_the_store_is_seen(s3: Path, tmp_path: Path) -> None:  # noqa: F811
    def left(output: Path) -> int:
        return kept_files(JobSpec("raw_pairs", "m", ToySpec(output=output), fingerprint="f1"))

    assert left(s3 / "raw_pairs") == 0
    for name in ("_work/f1/shipped/0.json", "_work/f1/shipped/1.json", "_work/other/2.json", "f1/0.parquet"):
        location.write_bytes(s3 / "raw_pairs" / name, b"{}")
    assert left(s3 / "raw_pairs") == 2
    assert left(tmp_path / "raw_pairs") == 0, "a volume of the pods is not seen from here"


def scoring(folder: Path, output: Path, clip: Path) -> JobSpec:
    rows = tables.world_rows(12)
    if not manifest.exists(folder / "raw_pairs"):
        tables.raw_pairs(folder / "raw_pairs", rows, shards=4)
    spec = ScoreSpec(
        output=output,
        raw_pairs=folder / "raw_pairs",
        clip=clip,
        device="cpu",
        threads=1,
        parameters=ScoreParameters(keep_embeddings=True),
    )
    return JobSpec(
        "week-1/clip_scores", STAGE.module, spec, resources=PARTS, fingerprint="f", divisible=STAGE.divisible
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.score.test_score_stage import model

    return tables.publish(tmp_path_factory.mktemp("clip") / "clip", model().save)


def pods_of_part(cluster: FakeCluster, part: int) -> list[str]:
    """How the pods of a part stand, or ended."""
    found = [
        pod
        for pod in cluster.pods()
        if pod["metadata"]["labels"].get(naming.INDEX_LABEL) == str(part)
        and pod["metadata"]["labels"][naming.ATTEMPT_LABEL] == "p0"
    ]
    return sorted(pod["status"]["phase"] for pod in found)


def test_a_part_that_fails_is_done_again_and_no_other(
    clip: Path, cluster: FakeCluster, s3: Path, store: dict[str, Any], tmp_path: Path,  # noqa: F811
    reports: list[Report],
) -> None:  # fmt: skip
    whole = scoring(tmp_path, tmp_path / "whole", clip)
    expected = execute(STAGE, whole.spec)
    output = s3 / "clip_scores"

    def kill() -> None:
        cluster.wait_for(lambda: "Running" in pods_of_part(cluster, 1), "the second part")
        cluster.kill(1)

    killer = threading.Thread(target=kill)
    killer.start()
    usage = KubernetesLauncher(cluster.settings(**store)).run(scoring(tmp_path, output, clip), reports.append)
    killer.join()

    assert [pods_of_part(cluster, part) for part in range(2)] == [["Succeeded"], ["Failed", "Succeeded"]]
    assert "part 1 failed (exit code 137) and is tried again" in messages(reports)
    made = manifest.read(output)
    assert made.data_version == expected.data_version
    assert made.ledger == expected.ledger
    # The parts, and what puts them together: it finds in the store what they left, and scores nothing.
    assert [body["spec"]["completions"] for body in cluster.created("Job")] == [2, 1]
    assert made.metrics["pairs_per_second"] is None
    assert usage.attempts == 2
    assert unpublished(output) == []
