"""A model's answers as a table, and their scores by the stage that scores them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.benchmarks import answers, suite
from pipelines.benchmarks.question import Asked
from pipelines.lake import manifest
from pipelines.score_answers.spec import STAGE as SCORES
from pipelines.score_answers.spec import ScoreAnswersSpec
from pipelines.stage import execute
from tests.benchmarks.conftest import publish


def answered(table: Path, asked: list[Asked], reply: Any) -> Path:
    (table / "made").mkdir(parents=True)
    answers.write([answers.row(one, reply(one)) for one in asked], table / "made" / answers.FILE)
    return publish(table, "answers")


def scores(tables: dict[str, Path], folder: Path, reply: Any) -> dict[str, Any]:
    table = answered(folder / "answers", suite.load(tables.values()), reply)
    spec = ScoreAnswersSpec(output=folder / "scores", answers={"model": table}, benchmarks=tables)
    execute(SCORES, spec)
    document: dict[str, Any] = json.loads(manifest.file(folder / "scores", "scores.json").read_text())
    return document
