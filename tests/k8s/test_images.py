"""The images: what each must hold and must not, by its lock."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.test_layers import LAYERS, imported

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "k8s/images"
ORCHESTRATION = {"dagster", "dagster-k8s", "dagster-webserver", "kubernetes", "gradio"}
"""Dependencies of the project that no pod of a job imports."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(image: str) -> dict[str, str]:
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)", (IMAGES / f"{image}.lock").read_text(), re.MULTILINE)
    return {normal(name): version for name, version in pins}


def test_the_gpu_image_has_every_dependency_of_the_stages_and_no_orchestrator() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {normal(re.split(r"[<>=!\[ ]", word)[0]) for word in project["dependencies"]} - ORCHESTRATION
    gpu = locked("gpu")
    assert wanted - gpu.keys() == set(), "add these to k8s/images/gpu.in, and run `make lock`"
    assert not {"dagster", "dagster-webserver", "kubernetes"} & gpu.keys()


def test_the_orchestrators_image_has_no_torch() -> None:
    names = locked("orchestrator")
    assert not {"torch", "deepspeed", "transformers"} & names.keys()
    assert {"dagster", "dagster-k8s", "dagster-postgres", "dagster-aws"} <= names.keys()


@pytest.mark.parametrize("image", ["gpu", "orchestrator"])
def test_the_images_have_the_versions_that_the_tests_ran_with_each_with_its_hashes(image: str) -> None:
    text = (ROOT / "requirements.lock").read_text()
    tested = {normal(name): version for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)", text, re.MULTILINE)}  # fmt: skip
    for name, version in locked(image).items():
        assert tested.get(name, version) == version, name
    lock = (IMAGES / f"{image}.lock").read_text()
    assert lock.count("==") <= lock.count(" \\\n    --hash=sha256:")
    assert "://" not in lock


def test_what_the_orchestrator_imports_is_in_its_image() -> None:
    packages = importlib.metadata.packages_distributions()
    found = set()
    for folder in ("assets", "jobs", "pipelines/launch", "pipelines/lake", "pipelines/deploy"):
        for path in (ROOT / folder).rglob("*.py"):
            # The first runs in pods, the second where jobs are processes of this machine.
            if path.name not in ("worker.py", "warm.py"):
                found |= imported(path)
    foreign = found - sys.stdlib_module_names - set(LAYERS)
    there = locked("orchestrator").keys()
    lacking = {name for name in foreign if there.isdisjoint(map(normal, packages.get(name, [])))}
    assert lacking == set(), "add these to k8s/images/orchestrator.in"


@pytest.mark.parametrize("image", ["gpu", "orchestrator"])
def test_a_dockerfile_is_pinned_and_does_not_run_as_root(image: str) -> None:
    text = (IMAGES / f"Dockerfile.{image}").read_text()
    assert all("@${PYTHON_DIGEST}" in line for line in text.splitlines() if line.startswith("FROM"))
    assert text.rstrip().splitlines()[-2] == "USER 1000:1000"
    assert f"{image}.lock" in text and "--require-hashes" in text
    copied = set(re.findall(r"^COPY ([a-z]+) ", text, re.MULTILINE))
    assert copied == (
        {"pipelines", "models"} | ({"assets", "jobs", "recipes"} if image == "orchestrator" else set())
    )


def test_of_the_repository_only_what_the_images_are_made_of_is_sent_to_the_build() -> None:
    """Without it, the virtual environment and all data would be."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source
        for image in ("gpu", "orchestrator")
        for source in re.findall(
            r"^COPY ([a-z0-9/.]+) /", (IMAGES / f"Dockerfile.{image}").read_text(), re.MULTILINE
        )
    }
    assert {
        source.removesuffix(f"/{Path(source).name}") if "." in source else source for source in copied
    } == sent
