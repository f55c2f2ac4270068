"""Leaderboards as CSV, Markdown and LaTeX: files beside the page, and links in it."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Sequence

from pipelines.report.benchmark_results import Leaderboard, Row

FORMATS = {"csv": "text/csv", "md": "text/markdown", "tex": "application/x-tex"}
_LATEX = str.maketrans(
    {
        "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
        "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
        "[": "{[}",  # one behind a line's end would be taken for its argument
    }
)  # fmt: skip
_FORMULA = re.compile(r"^[=+\-@\t\r]")


def as_csv(boards: Sequence[Leaderboard]) -> str:
    """One row per model, benchmark and language, with interval and source: long, as tools want it."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        [
            "benchmark",
            "figure",
            "unit",
            "model",
            "published",
            "source",
            "language",
            "value",
            "low",
            "high",
            "n",
        ]
    )
    for board in boards:
        for row in board.rows:
            for language in board.languages:
                if (cell := row.cells.get(language)) is not None:
                    # A spreadsheet would take a name that begins so for a formula.
                    model = "'" + row.model if _FORMULA.match(row.model) else row.model
                    bounds = ["" if one is None else one for one in (cell.low, cell.high, cell.n)]
                    writer.writerow(
                        [
                            board.benchmark,
                            board.figure,
                            board.unit,
                            model,
                            row.published,
                            row.source,
                            language,
                            cell.value,
                            *bounds,
                        ]
                    )
    return stream.getvalue()


def as_markdown(boards: Sequence[Leaderboard]) -> str:
    """A table per benchmark."""
    parts = []
    for board in boards:
        lines = [f"## {board.title}: {board.figure}, {board.unit}", ""]
        lines += [
            _pipes(["Model", *board.languages, "mean", "gap"]),
            _pipes(["---", *["---:"] * (len(board.languages) + 2)]),
        ]
        lines += [_pipes([_escaped(_name(row)), *_cells(board, row)]) for row in board.rows]
        parts.append("\n".join([*lines, "", *([board.note, ""] if board.note else [])]))
    return "\n".join(parts)


def as_latex(boards: Sequence[Leaderboard]) -> str:
    """A booktabs table per benchmark."""
    parts = []
    for board in boards:
        lines = [
            r"\begin{table}[t]", r"\centering",
            rf"\caption{{{board.title.translate(_LATEX)}: {board.figure.translate(_LATEX)} ({board.unit.translate(_LATEX)}).}}",
            rf"\begin{{tabular}}{{l{'r' * (len(board.languages) + 2)}}}", r"\toprule",
            " & ".join(["Model", *board.languages, "mean", "gap"]) + r" \\", r"\midrule",
        ]  # fmt: skip
        for place, row in enumerate(board.rows):
            if row.published and place and not board.rows[place - 1].published:
                lines.append(r"\midrule")
            lines.append(" & ".join([_name(row).translate(_LATEX), *_cells(board, row)]) + r" \\")
        parts.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]))
    return "\n".join(parts)


def files(boards: Sequence[Leaderboard]) -> dict[str, str]:
    """The three, by file name."""
    return {
        "leaderboards.csv": as_csv(boards),
        "leaderboards.md": as_markdown(boards),
        "leaderboards.tex": as_latex(boards),
    }


def link(name: str, text: str) -> str:
    """The address of a download that needs no network: the file itself."""
    kind = FORMATS[name.rpartition(".")[2]]
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def _name(row: Row) -> str:
    """On one line, for a line's end would end a row in Markdown, and an empty line a paragraph in LaTeX."""
    model = " ".join(row.model.split())
    return f"{model} (published: {row.source})" if row.published else model


def _cells(board: Leaderboard, row: Row) -> list[str]:
    values = [row.cells[language].value if language in row.cells else None for language in board.languages]
    return ["-" if value is None else f"{value:.1f}" for value in [*values, row.mean, row.gap]]


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escaped(text: str) -> str:
    return re.sub(r"([|\\`*_<>\[\]~$&])", r"\\\1", text)
