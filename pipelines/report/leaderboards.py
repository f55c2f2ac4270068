"""Leaderboards and comparisons from scores.json, beside the rows that the papers published."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines.benchmarks.benchmark import Benchmark, catalogue
from pipelines.report.benchmark_results import Cell, Consistency, Cost, Leaderboard, Paired, Row

PUBLISHED = Path(__file__).parents[1] / "benchmarks" / "published.yaml"
POINTS = 100.0
"""At and above this highest score, a benchmark counts points, not shares."""


@functools.cache
def published() -> dict[str, list[dict[str, Any]]]:
    """By benchmark, the rows of the papers' tables."""
    found: dict[str, list[dict[str, Any]]] = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    return found


def leaderboards(scores: Mapping[str, Any], *, pivot: str, own_world: Sequence[str]) -> list[Leaderboard]:
    """A board per benchmark. `own_world`: benchmarks whose questions are of the procedural world, which only share a
    published benchmark's layout and are not held against its rows.
    """
    boards = []
    for name, benchmark in catalogue().items():
        models = {model: found[name] for model, found in scores["models"].items() if name in found}
        if models:
            first = next(iter(next(iter(models.values())).values()))
            for figure in dict.fromkeys((first["headline"], benchmark.published_figure or first["headline"])):
                boards.append(_board(benchmark, figure, models, pivot=pivot, own=name in own_world))
    return boards


def _board(
    benchmark: Benchmark, figure: str, models: Mapping[str, Any], *, pivot: str, own: bool
) -> Leaderboard:
    first = next(iter(next(iter(models.values())).values()))
    points = benchmark.best >= POINTS
    scale = 1.0 if points else 100.0
    measured = list(dict.fromkeys(language for found in models.values() for language in found))
    comparable = figure == (benchmark.published_figure or first["headline"])
    known = published().get(benchmark.name, []) if comparable and not own else []
    languages = sorted(measured, key=lambda one: (one != pivot, _place(benchmark, one), one))
    rows = [
        _row(
            model,
            {
                language: Cell(**{part: round(scores[figure][part] * scale, 2) for part in ("value", "low", "high")})
                for language, scores in found.items()
                if scores.get(figure) is not None
            },
            languages, pivot, source=f"this run, {first.get('judge', 'robust reading')}",
        )
        for model, found in models.items()
    ]  # fmt: skip
    rows += [
        _row(
            one["model"],
            {language: Cell(value=value) for language, value in one["scores"].items() if language in languages},
            languages, pivot, source=one["source"], published=True,
        )
        for one in known
        if any(language in languages for language in one["scores"])
    ]  # fmt: skip
    note = ""
    if own:
        note = f"Questions of the procedural world in {benchmark.title}'s layout: not comparable with published scores."
    elif known and first.get("is_a_model") is False:
        note = "Scored here by the overlap with the reference, which is no judge: not comparable with the published rows."
    elif known and "judge" in first:
        note = f"Judged here by {first['judge']}; the published rows by the judges that their papers name."
    return Leaderboard(
        benchmark=benchmark.name,
        title=benchmark.title,
        figure=figure.replace("_", " "),
        unit="points" if points else "%",
        best=benchmark.best * scale,
        languages=languages,
        rows=sorted(rows, key=lambda row: (row.published, -_order(row))),
        note=note,
    )


def _place(benchmark: Benchmark, language: str) -> int:
    return (
        benchmark.languages.index(language) if language in benchmark.languages else len(benchmark.languages)
    )


def _order(row: Row) -> float:
    return sum(cell.value for cell in row.cells.values()) / max(1, len(row.cells))


def _row(
    model: str,
    cells: dict[str, Cell],
    languages: Sequence[str],
    pivot: str,
    *,
    source: str,
    published: bool = False,
) -> Row:
    whole = all(language in cells for language in languages)
    others = [cells[language].value for language in languages if language != pivot and language in cells]
    return Row(
        model=model,
        published=published,
        source=source,
        cells=cells,
        mean=round(sum(cells[language].value for language in languages) / len(languages), 2)
        if whole
        else None,
        gap=round(cells[pivot].value - sum(others) / len(others), 2) if pivot in cells and others else None,
    )


def costs(scores: Mapping[str, Any]) -> list[Cost]:
    """What each tool's reading of the same answers does, by model, benchmark and language."""
    return [
        Cost(model=model, benchmark=name, language=language, profile=profile, **cost)
        for model, found in scores["models"].items()
        for name in catalogue()
        for language, of_one in found.get(name, {}).items()
        for profile, cost in of_one["extraction_cost"].items()
    ]


def tells(cost: Cost) -> bool:
    """Whether the tool reads anything otherwise than we do."""
    return bool(cost.headline or cost.read_by_robust_alone or cost.read_differently)


def paired(scores: Mapping[str, Any]) -> list[Paired]:
    """The paired tests between models."""
    kept = ("first", "second", "difference", "low", "high", "p", "n")
    return [
        Paired(benchmark=name, language=language, **{key: test[key] for key in kept})
        for name, languages in scores["comparisons"].items()
        for language, tests in languages.items()
        for test in tests
    ]


def consistency(scores: Mapping[str, Any]) -> list[Consistency]:
    """Each model over the languages of each benchmark."""
    return [
        Consistency(
            model=model,
            benchmark=name,
            items=of_one["items"],
            languages=of_one["languages"],
            right_in=[round(count / of_one["items"], 4) for count in of_one["right_in"].values()],
            common_subset={
                language: one["value"] for language, one in of_one["common_subset"].items() if one is not None
            },
        )
        for model, found in scores["models"].items()
        for name, of_one in found["over_languages"].items()
    ]


def judges(scores: Mapping[str, Any]) -> dict[str, float]:
    """Each judge with the highest share of its reviews that failed."""
    found: dict[str, float] = {}
    for model in scores["models"].values():
        for name in catalogue():
            for of_one in model.get(name, {}).values():
                if "judge" in of_one:
                    found[of_one["judge"]] = max(found.get(of_one["judge"], 0.0), of_one["failed"])
    return found
