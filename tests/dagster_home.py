"""A folder in which Dagster commands run as in the repository, with a history and data of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
TINY_RECIPE = REPOSITORY / "tests/tiny.yaml"


@dataclass(frozen=True)
class Home:
    """The folder; commands run in it see the repository's code and the recipe in it."""

    folder: Path
    recipe: Path

    @classmethod
    def make(cls, folder: Path, recipe: Path = TINY_RECIPE, **instance: Any) -> Home:
        """A copy of the repository's `dagster.yaml`, overridden by `instance`, and of a recipe."""
        settings = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
        (folder / "dagster.yaml").write_text(yaml.safe_dump({**settings, **instance}))
        return cls(folder, Path(shutil.copy(recipe, folder / "recipe.yaml")))

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONWARNINGS": "ignore",
            "DAGSTER_HOME": str(self.folder),
            "RECIPE": str(self.recipe),
        }

    def change_recipe(self, old: str, new: str) -> None:
        """Edit the recipe as a person would."""
        text = self.recipe.read_text()
        assert old in text
        self.recipe.write_text(text.replace(old, new))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m ARGUMENTS` to its end."""
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def execute(self, job: str, *more: str) -> subprocess.CompletedProcess[str]:
        """`dagster job execute -m jobs -j JOB`"""
        return self.run("dagster", "job", "execute", "-m", "jobs", "-j", job, *more)
