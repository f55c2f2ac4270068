"""The benchmark sections: every benchmark in every language, published rows labelled, downloads that agree, a page that
a phone can show.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from pipelines.benchmark_files.spec import STAGE as FILES
from pipelines.benchmark_files.spec import BenchmarkFilesSpec
from pipelines.benchmarks import answers, suite
from pipelines.benchmarks.question import Asked
from pipelines.report.exports import as_latex, as_markdown
from pipelines.report.results import Results
from pipelines.report.spec import STAGE, ReportSpec
from pipelines.report.terminal import read_results
from pipelines.score_answers.spec import STAGE as SCORES
from pipelines.score_answers.spec import ScoreAnswersSpec
from pipelines.stage import execute
from tests.benchmarks import published
from tests.report.conftest import HOSTILE, new, publish


def good(asked: Asked) -> str:
    return f"答案是{asked.gold}。" if asked.language == "zh" and asked.options else asked.gold


def poor(asked: Asked) -> str:
    if asked.item == "1":
        return HOSTILE
    return "A" if asked.language in ("en", "zh") else good(asked)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on two models that answered every published benchmark; one of them has experts."""
    folder = tmp_path_factory.mktemp("benchmarks")
    (folder / "files").mkdir()
    images = published.images(folder / "images")
    tables = {}
    for name, files in published.everything(folder / "files").items():
        tables[name] = folder / name
        execute(FILES, BenchmarkFilesSpec(output=tables[name], benchmark=name, files=files, images=images))
    asked = suite.load(tables.values())
    said = {}
    for name, reply in (("good_one", good), ("poor_one", poor)):
        said[name], made = new(folder, f"answers-{name}")
        answers.write([answers.row(one, reply(one)) for one in asked], made / answers.FILE)
        experts: Any = {"en": [0.7, 0.2, 0.1], "zh": [0.1, 0.8, 0.1]} if name == "good_one" else {}
        publish(said[name], "answers", metrics={"experts": experts})
    execute(SCORES, ScoreAnswersSpec(output=folder / "scores", answers=said, benchmarks=tables))
    spec = ReportSpec(output=folder / "report", answers=said, scores=folder / "scores", benchmarks=tables)
    execute(STAGE, spec)
    return folder / "report"


@pytest.fixture(scope="module")
def results(report: Path) -> Results:
    return read_results(report / "results.json")


def boards(results: Results) -> dict[tuple[str, str], Any]:
    assert results.benchmarks is not None
    return {(board.benchmark, board.figure): board for board in results.benchmarks.leaderboards}


def test_every_benchmark_has_a_board_and_the_papers_rows_are_labelled(results: Results) -> None:
    found = boards(results)
    assert {name for name, _ in found} >= {
        "mmmb",
        "mmbench",
        "mme",
        "mmstar",
        "xvnli",
        "xgqa",
        "llava",
        "unimm",
    }
    parrot = next(row for row in found["mmmb", "plain"].rows if row.model == "Parrot (Qwen1.5-7B)")
    assert parrot.published and parrot.source == "P, Table 2"
    assert [parrot.cells[one].value for one in ("en", "zh", "pt", "ar", "tr", "ru")] == [
        70.0,
        68.13,
        67.31,
        62.69,
        58.01,
        66.26,
    ]
    assert parrot.gap == pytest.approx(70.0 - (68.13 + 67.31 + 62.69 + 58.01 + 66.26) / 5, abs=0.01)
    # The papers' MMMB rows are of single questions, so they do not stand beside circular scores.
    assert not any(row.published for row in found["mmmb", "circular"].rows)
    ours = found["mmmb", "circular"].rows[0]
    assert ours.model == "good_one" and ours.mean == 100.0 and ours.gap == 0.0
    assert found["mme", "score"].unit == "points"


def test_the_cost_of_reading_is_told_per_language_and_profile(results: Results) -> None:
    assert results.benchmarks is not None
    costs = {(one.model, one.benchmark, one.language, one.profile): one for one in results.benchmarks.costs}
    chinese = costs["good_one", "mmmb", "zh", "vlmevalkit"]
    assert (chinese.headline, chinese.read_by_robust_alone) == (-1.0, 1.0)
    assert costs["good_one", "mmmb", "en", "vlmevalkit"].headline == 0.0


def test_consistency_and_paired_tests_compare_items(results: Results) -> None:
    assert results.benchmarks is not None
    over = {(one.model, one.benchmark): one for one in results.benchmarks.consistency}
    assert over["good_one", "mmmb"].right_in == [0, 0, 0, 0, 0, 0, 1]
    assert over["poor_one", "mmmb"].right_in[4] == pytest.approx(5 / 6, abs=1e-3)
    test = next(one for one in results.benchmarks.paired if (one.benchmark, one.language) == ("mmmb", "en"))
    assert (test.first, test.second, test.difference, test.n) == ("good_one", "poor_one", -1.0, 6)


def test_the_downloads_hold_what_the_boards_hold(report: Path, results: Results) -> None:
    assert results.benchmarks is not None
    made = next(report.glob("*/leaderboards.csv"))
    rows = list(csv.DictReader(io.StringIO(made.read_text(encoding="utf-8"))))
    shown = [
        (board.benchmark, board.figure, row.model, language, str(cell.value))
        for board in results.benchmarks.leaderboards
        for row in board.rows
        for language, cell in row.cells.items()
    ]
    assert sorted(shown) == sorted(
        (r["benchmark"], r["figure"], r["model"], r["language"], r["value"]) for r in rows
    )
    markdown = as_markdown(results.benchmarks.leaderboards)
    assert "| Parrot (Qwen1.5-7B) (published: P, Table 2) | 70.0 | 68.1 |" in markdown
    latex = as_latex(results.benchmarks.leaderboards)
    assert (
        latex.count(r"\begin{table}") == latex.count(r"\end{table}") == len(results.benchmarks.leaderboards)
    )
    assert r"good\_one & 100.0" in latex


def test_answers_on_which_the_rules_disagree_are_shown_with_what_each_reads(results: Results) -> None:
    assert results.benchmarks is not None
    shown = [one for one in results.benchmarks.answers if (one.benchmark, one.language) == ("mmmb", "zh")]
    first = next(one for one in shown if one.why == "profiles disagree")
    readings = {one.profile: (one.said, one.right) for one in first.readings}
    assert readings["robust"] == (first.gold, True) and readings["vlmevalkit"] == (None, False)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as started:
        chromium = started.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield chromium
        chromium.close()


@pytest.mark.parametrize("width", [375, 1200])
def test_the_page_fits_the_screen_asks_for_nothing_and_gives_the_downloads(
    report: Path, browser: Browser, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.goto((report / "index.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == [] and problems == []
    assert page.locator("#benchmarks svg").count() >= 3
    with page.expect_download() as downloading:
        page.get_by_role("link", name="CSV").click()
    assert downloading.value.suggested_filename == "leaderboards.csv"
    assert Path(downloading.value.path()).read_text().startswith("benchmark,figure,unit,model")
    assert page.locator("script").count() == 0 and HOSTILE in (page.text_content("#benchmarks") or "")
    page.close()


def test_the_section_is_in_the_json_too(report: Path) -> None:
    document = json.loads((report / "results.json").read_text())
    assert document["benchmarks"]["experts"] == {"good_one": {"en": [0.7, 0.2, 0.1], "zh": [0.1, 0.8, 0.1]}}
