"""The stand-in cluster for the tests of this folder, with the rights of our own manifests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipelines.lake import manifest
from pipelines.launch.local import LocalLauncher
from pipelines.launch.spec import Report
from tests import tables
from tests.launch.apiserver.cluster import FakeCluster
from tests.launch.apiserver.rights import Rights
from tests.launch.training_job import job

REPOSITORY = Path(__file__).parents[2]
RIGHTS = (
    REPOSITORY / "k8s/base/rbac.yaml",
    REPOSITORY / "k8s/overlays/kueue/rbac.yaml",
    REPOSITORY / "k8s/overlays/jobset/rbac.yaml",
)


def granted() -> Rights:
    """What our manifests grant."""
    return Rights.of(
        document
        for path in RIGHTS
        for document in yaml.safe_load_all(path.read_text())
        if document is not None
    )


@pytest.fixture(scope="session")
def rights() -> Rights:
    return granted()


@pytest.fixture
def cluster(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, rights: Rights
) -> Iterator[FakeCluster]:
    with FakeCluster(tmp_path / "cluster", rights, shared=tmp_path_factory.getbasetemp()) as made:
        yield made


@pytest.fixture
def reports() -> list[Report]:
    return []


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the training of `training_job` reads."""
    return tables.training_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def undisturbed(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The data version of that training on this machine, with nothing in its way."""
    wanted = job(inputs, tmp_path_factory.mktemp("undisturbed"))
    LocalLauncher().run(wanted, lambda report: None)
    return manifest.read(wanted.spec.output).data_version


def messages(reports: list[Report]) -> str:
    """What a person was told."""
    return "\n".join(report["text"] for report in reports if report["kind"] in ("message", "state"))
