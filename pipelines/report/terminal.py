"""The results as a table on the terminal: `python -m pipelines.report show results.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipelines.errors import BadInput
from pipelines.report.page import model_title
from pipelines.report.results import Results, Score, language_name, score_of

_COLUMNS = (
    ("mmmb", "circular", "circular"),
    ("open", "content", "open content"),
    ("language", "asked", "asked language"),
)


def read_results(path: Path) -> Results:
    """The results in a results.json.

    Raises:
        BadInput: the file is missing, or was not written by the report stage.
    """
    try:
        return Results.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise BadInput("the file does not exist", where=path, remedy="run the report stage first") from None
    except ValidationError as error:
        raise BadInput(
            f"this is no results.json of a report: {error.errors()[0]['msg']}",
            where=path,
            remedy="run the report stage again",
        ) from None


def terminal_table(results: Results | dict[str, Any]) -> str:
    """Scores by model and language, then the aims: at most 100 columns, no trailing newline."""
    shown = results if isinstance(results, Results) else Results.model_validate(results)
    header = ("model", "language", *(title for _, _, title in _COLUMNS))
    rows: list[tuple[str, ...]] = []
    for name, model in shown.scores["models"].items():
        for language in shown.languages:
            first = model_title(shown, name) if language == shown.languages[0] else ""
            scores = [
                _score(score_of(model, benchmark, language, figure)) for benchmark, figure, _ in _COLUMNS
            ]
            rows.append((first, language_name(language), *scores))
    parts = [_table(header, rows)]
    if shown.aims:
        aims = [
            (
                aim.name,
                f"{aim.aim:g}",
                "-" if aim.value is None else f"{aim.value:.3f}" if aim.aim <= 1 else f"{aim.value:.1f}",
                {True: "reached", False: "NOT REACHED", None: "not measured"}[aim.reached],
            )
            for aim in shown.aims
        ]
        parts.append(_table(("aim", "at least", "this run", ""), aims))
    for finding in shown.findings:
        mark = "agrees" if finding.agrees else "DOES NOT SHOW"
        parts.append(f"{finding.title}: {finding.figure} {finding.label} ({mark})")
    return "\n\n".join(parts[:2]) + ("\n\n" + "\n".join(parts[2:]) if parts[2:] else "")


def _score(score: Score | None) -> str:
    return "-" if score is None else f"{score.value:6.1%}  [{score.low:.2f}, {score.high:.2f}]"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
