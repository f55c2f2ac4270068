"""The models' cards with their scores, beside the report."""

from __future__ import annotations

from pathlib import Path

from pipelines.lake import manifest
from pipelines.model_card.markdown import FILE
from pipelines.model_card.scores import completed
from pipelines.report.results import Results, score_of
from pipelines.report.spec import ReportSpec


def write(spec: ReportSpec, results: Results, folder: Path) -> None:
    """Write `<model>.md` for each model whose table the report was given and that was scored.

    Raises:
        BadInput: a model's table has no card, or none of this project's.
    """
    folder.mkdir()
    versions = {table.name: table.data_version for table in results.tables}
    for name in named(results):
        card = manifest.file(spec.models[name], FILE)
        scored = results.scores["models"][name]
        asked = {language: score_of(scored, "language", language, "asked") for language in results.languages}
        of_these = [
            f"models/{name}",
            f"answers/{name}",
            "scores",
            *(f"benchmarks/{one}" for one in spec.benchmarks),
        ]
        text = completed(
            card.read_text(encoding="utf-8"), name,
            [] if results.benchmarks is None else results.benchmarks.leaderboards,
            {language: score for language, score in asked.items() if score is not None},
            {table: versions[table] for table in of_these if table in versions},
            recipe=spec.parameters.recipe, where=str(card),
        )  # fmt: skip
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def named(results: Results) -> list[str]:
    """The models that have a card, in the report's order."""
    given = {table.name for table in results.tables}
    return [name for name in results.scores["models"] if f"models/{name}" in given]
