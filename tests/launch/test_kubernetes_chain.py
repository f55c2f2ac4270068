"""The whole tiny recipe on the stand-in cluster, by the command that people use: every table is made in a pod."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pipelines.lake import manifest
from tests.dagster_home import Home
from tests.launch.apiserver.cluster import FakeCluster

pytestmark = pytest.mark.slow


def cluster_file(cluster: FakeCluster, folder: Path) -> Path:
    """The file that describes the stand-in, as a person would write it."""
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(cluster.settings().model_dump(mode="json", exclude_defaults=True)))
    return path


def test_the_whole_recipe_runs_on_the_cluster_and_a_second_run_starts_no_pod(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    home = Home.make(folder)
    home.change_recipe("workspace: data/tiny", f"workspace: {folder / 'data/tiny'}")
    small = "{cpus: 1, memory: 4Gi, scratch: 2Gi, shared_memory: 64Mi}"
    divided = small.replace("}", ", parts: 2}")
    home.recipe.write_text(
        f"{home.recipe.read_text()}\nresources: {{default: {small}, clip_scores: {divided}}}\n"
    )
    monkeypatch.setenv("COMPUTE_MODE", "kubernetes")
    monkeypatch.setenv("CLUSTER_FILE", str(cluster_file(cluster, folder)))

    ended = home.execute("tiny")

    assert ended.returncode == 0, ended.stderr[-6000:]
    tables = [path.parent for path in (folder / "data/tiny").rglob(manifest.MANIFEST_NAME)]
    (total,) = {int(total) for total in re.findall(r"^\[ *\d+/(\d+)\]", ended.stderr, re.MULTILINE)}
    assert len(tables) == total >= 20
    for table in tables:
        manifest.verify(table)
    jobs = cluster.created("Job")
    # Scoring was divided in two, and then put together.
    assert sorted(body["spec"]["completions"] for body in jobs) == [1] * total + [2]
    assert all((body["status"].get("conditions") or [])[-1]["type"] == "Complete" for body in cluster.jobs())
    accounts = {body["spec"]["template"]["spec"]["serviceAccountName"] for body in jobs}
    assert accounts == {"downloader", "data-worker"}

    again = home.execute("tiny")

    assert again.returncode == 0, again.stderr[-4000:]
    assert len(cluster.created("Job")) == len(jobs)
