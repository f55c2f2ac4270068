"""The benchmark sections of the report, and what the page draws from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.benchmarks.benchmark import catalogue
from pipelines.benchmarks.files import WORLD_STAGE, Files
from pipelines.benchmarks.left_in_english import left_in_english
from pipelines.benchmarks.question import Asked
from pipelines.lake import manifest
from pipelines.report import browser, exports, leaderboards, radar
from pipelines.report.benchmark_results import BenchmarkSection, Cell, Leaderboard
from pipelines.report.charts import COLOURS
from pipelines.report.results import LANGUAGE_NAMES, Results
from pipelines.report.spec import ReportSpec
from pipelines.score_answers.spec import READINGS, REVIEWS

LEAST_AXES = 3


def section(spec: ReportSpec, scores: Mapping[str, Any], asked: Sequence[Asked]) -> BenchmarkSection:
    """Everything about the benchmarks, from the scores, the readings and the answers' manifests."""
    readings = manifest.file(spec.scores, READINGS)
    shown = spec.parameters.browsed_answers
    left = {
        manifest.read(table).parameters["benchmark"]: found
        for table in spec.benchmarks.values()
        if (found := left_in_english(table))
    }
    experts = {name: manifest.read(table).metrics.get("experts") for name, table in spec.answers.items()}
    return BenchmarkSection(
        leaderboards=leaderboards.leaderboards(
            scores, pivot=spec.parameters.pivot_language, own_world=_own_world(spec), left=left
        ),
        categories=leaderboards.categories(scores, pivot=spec.parameters.pivot_language),
        judging=leaderboards.judging(scores),
        drift=leaderboards.drift(scores),
        costs=leaderboards.costs(scores),
        paired=leaderboards.paired(scores),
        consistency=leaderboards.consistency(scores),
        judges=leaderboards.judges(scores),
        experts={name: of_model for name, of_model in experts.items() if of_model},
        answers=[
            *browser.answers(readings, {one.key: one for one in asked}, per_place=shown),
            *browser.rated_answers(manifest.file(spec.scores, REVIEWS), per_place=shown),
        ],
    )


def _own_world(spec: ReportSpec) -> list[str]:
    """The benchmarks whose files are of the procedural world."""
    files = Files(list(spec.benchmarks.values()))
    homes = {one.name: files.homes(one.file) for one in catalogue().values()}
    return [
        name
        for name, tables in homes.items()
        if any(manifest.read(table).stage == WORLD_STAGE for table in tables)
    ]


def write_downloads(section: BenchmarkSection, folder: Path) -> None:
    """The leaderboards as CSV, Markdown and LaTeX, beside the page."""
    for name, text in exports.files(section.leaderboards).items():
        (folder / name).write_text(text, encoding="utf-8")


def drawn(results: Results) -> dict[str, Any]:
    """What the template needs besides the results: charts, links, titles."""
    found = results.benchmarks
    boards = [] if found is None else found.leaderboards
    models = list(dict.fromkeys(row.model for board in boards for row in board.rows if not row.published))
    return {
        "downloads": {name: exports.link(name, text) for name, text in exports.files(boards).items()},
        "groups": [_group(found, name) for name in dict.fromkeys(board.benchmark for board in boards)]
        if found
        else [],
        "radars": _radars([board for board in boards if not board.further], models),
        "radar_models": models[: len(COLOURS)],
        "not_in_radars": models[len(COLOURS) :],
        "experts": {
            name: radar.experts(languages, LANGUAGE_NAMES)
            for name, languages in ({} if found is None else found.experts).items()
        },
        "spoken": [
            (name, language, spoken)
            for name, model in results.scores["models"].items()
            for language, spoken in model["language"].items()
        ],
        "telling_costs": [] if found is None else [one for one in found.costs if leaderboards.tells(one)],
        "counted": _counted,
        "titles": {name: benchmark.title for name, benchmark in catalogue().items()},
        "scales": {
            name: 1.0 if one.best >= leaderboards.POINTS else 100.0 for name, one in catalogue().items()
        },
    }


def _group(found: BenchmarkSection, name: str) -> dict[str, Any]:
    """One benchmark as the page shows it: its boards, further figures folded, and its categories."""
    boards = [board for board in found.leaderboards if board.benchmark == name]
    return {
        "title": boards[0].title,
        "boards": [board for board in boards if not board.further],
        "further": [board for board in boards if board.further],
        "categories": [one for one in found.categories if one.benchmark == name],
    }


def _counted(board: Leaderboard) -> str:
    """How many items the board's scores count."""
    counts = {cell.n for row in board.rows for cell in row.cells.values() if cell.n is not None}
    if not counts:
        return ""
    least, most = min(counts), max(counts)
    return f"{most:,} items" if least == most else f"{least:,} to {most:,} items"


def _radars(boards: Sequence[Leaderboard], models: Sequence[str]) -> dict[str, Any]:
    """A radar over the languages of each benchmark that has three or more (P, Fig. 9), and one over benchmarks (P, Fig. 5b)."""
    shown = models[: len(COLOURS)]
    charts = {}
    for board in boards:
        if len(board.languages) >= LEAST_AXES and board.best is not None:
            best = board.best
            rows = {row.model: row for row in board.rows if not row.published}
            charts[f"{board.title}, {board.figure}"] = radar.radar(
                [(LANGUAGE_NAMES.get(language, language), best) for language in board.languages],
                # All of them, since a model's colour is its place.
                [
                    (
                        name,
                        [
                            _value(rows[name].cells.get(language)) if name in rows else None
                            for language in board.languages
                        ],
                    )
                    for name in shown
                ],
            )
    english: dict[str, Leaderboard] = {}
    for board in boards:
        if "en" in board.languages:
            english.setdefault(board.benchmark, board)
    if len(english) >= LEAST_AXES:
        axes = [
            (board.title, radar.USUAL_BEST if board.best is None else board.best)
            for board in english.values()
        ]
        series = []
        for name in shown:
            cells = [
                next(
                    (row.cells.get("en") for row in board.rows if row.model == name and not row.published),
                    None,
                )
                for board in english.values()
            ]
            series.append((name, [_value(cell) for cell in cells]))
        charts["English, over benchmarks"] = radar.radar(axes, series)
    return charts


def _value(cell: Cell | None) -> float | None:
    return None if cell is None else cell.value
