"""Leaderboards and comparisons from scores.json, beside the rows that the papers published."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from pipelines.benchmarks.benchmark import Benchmark, catalogue
from pipelines.benchmarks.left_in_english import Left
from pipelines.report.benchmark_results import (
    Categories,
    CategoryScores,
    Cell,
    Consistency,
    Cost,
    Drift,
    Judging,
    Leaderboard,
    Paired,
    Row,
)
from pipelines.report.results import language_name

PUBLISHED = Path(__file__).parents[1] / "benchmarks" / "published.yaml"
POINTS = 100.0
"""At and above this highest score, a benchmark counts points, not shares."""
OFFICIAL = "official"
TASK = "task "
"""Begins the names of figures that are of one category alone."""
NOT_SHOWN = {"unresolved"}
"""What says how answers were read, which has tables of its own."""


@functools.cache
def published() -> dict[str, list[dict[str, Any]]]:
    """By benchmark, the rows of the papers' tables."""
    found: dict[str, list[dict[str, Any]]] = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    return found


def leaderboards(
    scores: Mapping[str, Any],
    *,
    pivot: str,
    own_world: Sequence[str],
    left: Mapping[str, Mapping[str, Left]] = MappingProxyType({}),
) -> list[Leaderboard]:
    """A board per benchmark and figure: the headline, that of the papers, then every other, and the headline by the rules of
    the benchmark's own script, whose denominator may be another.

    `own_world`: benchmarks whose questions are of the procedural world, which only share a published benchmark's layout and
    are not held against its rows; `left`: by benchmark and language, what a translation left in English.
    """
    boards = []
    for name, benchmark in catalogue().items():
        models = {model: found[name] for model, found in scores["models"].items() if name in found}
        if not models:
            continue
        notes = [*_translation_notes(left.get(name, {})), *_answer_notes(models)]
        first = _first(models)
        for figure in _figures(benchmark, models):
            boards.append(_board(benchmark, figure, models, pivot=pivot, own=name in own_world, notes=notes))
        if OFFICIAL in first["profiles"]:
            by_rule = {
                model: {language: of_one["profiles"][OFFICIAL] for language, of_one in found.items()}
                for model, found in models.items()
            }
            boards.append(
                _board(
                    benchmark,
                    first["headline"],
                    by_rule,
                    pivot=pivot,
                    own=name in own_world,
                    notes=notes,
                    official=True,
                )
            )
    return boards


def _first(models: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(iter(next(iter(models.values())).values()))
    return found


def _figures(benchmark: Benchmark, models: Mapping[str, Any]) -> list[str]:
    """The headline, the papers' figure, and whatever else was measured of a whole benchmark."""
    first = _first(models)["headline"]
    measured = dict.fromkeys(
        figure
        for found in models.values()
        for of_language in found.values()
        for figure, value in of_language.items()
        if isinstance(value, dict) and "standard_error" in value and not figure.startswith(TASK)
    )
    figures = dict.fromkeys((first, benchmark.published_figure or first, *measured))
    return [figure for figure in figures if figure not in NOT_SHOWN]


def _translation_notes(left: Mapping[str, Left]) -> list[str]:
    return [
        f"{language_name(language)} was translated: {one.english} of {one.texts} texts ({one.share:.0%}) stayed English there, "
        "since the translation guard rejected theirs."
        for language, one in left.items()
        if one.english
    ]


def _answer_notes(models: Mapping[str, Any]) -> list[str]:
    """What of a judged benchmark had no answer: it is in no score, so that scores are of fewer questions."""
    return [
        f"{model} left {count} {language_name(language)} questions without an answer to judge; they enter no score."
        for model, found in models.items()
        for language, of_one in found.items()
        if (count := of_one.get("without_answer"))
    ]


def _board(
    benchmark: Benchmark,
    figure: str,
    models: Mapping[str, Any],
    *,
    pivot: str,
    own: bool,
    notes: Sequence[str],
    official: bool = False,
) -> Leaderboard:
    first = _first(models)
    usual = {benchmark.figures[0], benchmark.published_figure}
    points = benchmark.best >= POINTS and figure != benchmark.item_figure
    scale = 1.0 if points else 100.0
    comparable = figure == (benchmark.published_figure or benchmark.figures[0]) and not official
    known = published().get(benchmark.name, []) if comparable and not own else []
    languages = _ordered(benchmark, models, pivot)
    rows = [
        _row(
            model,
            {language: _cell(scores[figure], scale) for language, scores in found.items() if scores.get(figure) is not None},
            languages, pivot, source=f"this run, {first.get('judge', 'official rules' if official else 'robust reading')}",
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
    told = list(notes)
    if own:
        told.append(
            f"Questions of the procedural world in {benchmark.title}'s layout: not comparable with published scores."
        )
    elif known and first.get("is_a_model") is False:
        told.append(
            "Scored here by the overlap with the reference, which is no judge: not comparable with the published rows."
        )
    elif known and "judge" in first:
        told.append(
            f"Judged here by {first['judge']}; the published rows by the judges that their papers name."
        )
    if official:
        told.append(
            "The same answers by the rules of the benchmark's own script"
            + (
                ", which leaves what was not answered out of the denominator."
                if OFFICIAL in benchmark.leaves_missing_out
                else "."
            )
        )
    return Leaderboard(
        benchmark=benchmark.name,
        title=benchmark.title,
        figure=figure.replace("_", " ") + (", official rules" if official else ""),
        unit="points" if points else "%",
        best=(benchmark.best if points else 100.0) if figure in usual else None,
        further=figure not in usual or official,
        languages=languages,
        rows=sorted(rows, key=lambda row: (row.published, -_order(row))),
        note=" ".join(told),
    )


def _cell(score: Mapping[str, Any], scale: float) -> Cell:
    # Of a single image an error clustered by image is zero, which would look like certainty.
    bounded = score["clusters"] > 1 or score["low"] < score["high"]
    bounds = {part: round(score[part] * scale, 2) for part in ("low", "high")} if bounded else {}
    return Cell(value=round(score["value"] * scale, 2), n=score["n"], **bounds)


def categories(scores: Mapping[str, Any], *, pivot: str) -> list[Categories]:
    """Each benchmark in each language by category, where it has several; MME's in points, a task each."""
    found = []
    for name, benchmark in catalogue().items():
        models = {model: of_model[name] for model, of_model in scores["models"].items() if name in of_model}
        for language in _ordered(benchmark, models, pivot):
            in_it = {model: of_model[language] for model, of_model in models.items() if language in of_model}
            names = sorted({category for one in in_it.values() for category in one["by_category"]})
            points = any(figure.startswith(TASK) for one in in_it.values() for figure in one)
            figure = benchmark.figures[0]
            rows = [
                CategoryScores(
                    category=category,
                    cells={
                        model: _cell(score, 1.0 if points else 100.0)
                        for model, one in in_it.items()
                        for score in [
                            one.get(TASK + category)
                            if points
                            else one["by_category"].get(category, {}).get(figure)
                        ]
                        if score is not None
                    },
                )
                for category in names
            ]
            if len(rows) > 1:
                found.append(
                    Categories(
                        benchmark=name, language=language, figure=figure.replace("_", " "),
                        unit="points" if points else "%", models=list(in_it), rows=rows,
                    )
                )  # fmt: skip
    return found


def _ordered(benchmark: Benchmark, models: Mapping[str, Any], pivot: str) -> list[str]:
    """The languages that were asked: the pivot, then as published, then further ones."""
    asked = {language for found in models.values() for language in found}
    return sorted(asked, key=lambda one: (one != pivot, _place(benchmark, one), one))


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


def judging(scores: Mapping[str, Any]) -> list[Judging]:
    """What stands behind each judged score: failures, who judged, and the bias for a place."""
    return [
        Judging(
            model=model,
            benchmark=name,
            language=language,
            judge=of_one["judge"],
            answered_as=of_one["judgement"]["judges"],
            judged=of_one["judgement"]["pooled"]["judged"],
            failed=of_one["judgement"]["failures"]["count"],
            reasons=of_one["judgement"]["failures"]["reasons"],
            as_published=of_one["judgement"]["pooled"].get("score_as_published"),
            place_bias=of_one["judgement"]["place_bias"],
        )
        for model, found in scores["models"].items()
        for name in catalogue()
        for language, of_one in found.get(name, {}).items()
        if of_one.get("is_a_model")
    ]


def drift(scores: Mapping[str, Any]) -> list[Drift]:
    """The judge against the reviews in each calibration pack."""
    return [
        Drift(
            benchmark=name,
            **found["judges"],
            **{key: value for key, value in found.items() if key != "judges"},
        )
        for name, found in scores["drift"].items()
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
