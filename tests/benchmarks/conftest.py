"""A small benchmark table, and the answers that made-up models give to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.benchmarks import answers, suite
from pipelines.benchmarks.question import Asked
from pipelines.lake import manifest
from pipelines.lake.identity import file_sha256
from pipelines.lake.manifest import Manifest, TableFile
from pipelines.world import benchmark

LANGUAGES = ["en", "zh"]


def publish(table: Path, stage: str) -> Path:
    """Make a table of the files in `table`/made."""
    files = [
        TableFile(path=f"made/{path.name}", sha256=file_sha256(path), bytes=path.stat().st_size)
        for path in sorted((table / "made").iterdir())
    ]
    made = Manifest(
        stage=stage, code_version="1", fingerprint="made", parameters={}, inputs={}, files=files, created="",
        seconds=0.0,
    )  # fmt: skip
    manifest.write(table, made)
    return table


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 items with four options and 40 open questions, in English and Chinese."""
    table = tmp_path_factory.mktemp("benchmarks")
    (table / "made").mkdir()
    choice = benchmark.draw_items(32, seed=1, choice=True)
    opened = benchmark.draw_items(40, seed=1, choice=False)
    for language in LANGUAGES:
        benchmark.write_mmmb(choice, language, table / f"made/mmmb_{language}.tsv")
        benchmark.write_open_questions(opened, language, LANGUAGES, table / f"made/open_{language}.parquet")
    return publish(table, "world")


@pytest.fixture
def answered_by(benchmarks: Path, tmp_path: Path) -> Callable[..., Path]:
    """The answers table of a model that answers a question with what `reply` gives; None leaves it out."""

    def make(name: str, reply: Callable[[Asked], str | None]) -> Path:
        said = [(one, reply(one)) for one in suite.load([benchmarks], LANGUAGES)]
        given = [answers.row(one, answer) for one, answer in said if answer is not None]
        (tmp_path / name / "made").mkdir(parents=True)
        file = tmp_path / name / "made" / answers.FILE
        answers.write(given, file)
        return publish(tmp_path / name, "answers")

    return make
