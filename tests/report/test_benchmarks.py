"""The benchmark sections: every benchmark in every language, published rows labelled, downloads that agree, a page that
a phone can show.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from pipelines.benchmark_files.spec import STAGE as FILES
from pipelines.benchmark_files.spec import BenchmarkFilesSpec
from pipelines.benchmarks import answers, suite
from pipelines.benchmarks.left_in_english import Left
from pipelines.benchmarks.question import Asked
from pipelines.judge.spec import Judge
from pipelines.remote.spec import Conduct, Server
from pipelines.report.benchmark_results import Cell, Leaderboard, Row
from pipelines.report.benchmarks import drawn
from pipelines.report.charts import dots
from pipelines.report.exports import as_csv, as_latex, as_markdown
from pipelines.report.leaderboards import leaderboards
from pipelines.report.page import render
from pipelines.report.radar import radar
from pipelines.report.results import Results
from pipelines.report.spec import STAGE, ReportSpec
from pipelines.report.terminal import read_results
from pipelines.score_answers.pack import main as make_pack
from pipelines.score_answers.spec import STAGE as SCORES
from pipelines.score_answers.spec import ScoreAnswersSpec
from pipelines.stage import execute
from tests.benchmarks import published
from tests.chat_server import Answer, Call, serving
from tests.report.conftest import HOSTILE, new, publish


def good(asked: Asked) -> str:
    return f"答案是{asked.gold}。" if asked.language == "zh" and asked.options else asked.gold


def poor(asked: Asked) -> str:
    if asked.item == "1":
        return HOSTILE
    return "A" if asked.language in ("en", "zh") else good(asked)


def judge(url: str, name: str) -> Judge:
    return Judge(server=Server(base_url=url, model=name))


def judged(call: Call) -> Answer:
    """The poor model's answers are worse; one review is no review; the later judge is stricter, and likes what stands first."""
    poor = HOSTILE in call.prompt
    if poor and "question 1?" in call.prompt and "[Context]" in call.prompt:
        return Answer("I would rather not say.")
    if "[Context]" not in call.prompt:
        return Answer("2\nfar off" if poor else "5\nright")
    strict = call.body["model"] == "judge-2026"
    return Answer(
        f"{9 if strict else 8} {8 - strict - 4 * poor}\nThe first <b>names</b> the dog.",
        model=call.body["model"],
    )


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
    with serving(judged) as (_, url):
        told = ScoreAnswersSpec(
            output=folder / "first", answers=said, benchmarks=tables, judge=judge(url, "judge-2023"),
            judge_cache=folder / "cache.sqlite", conduct=Conduct(backoff_seconds=0.01), most_judge_failures=1.0,
        )  # fmt: skip
        execute(SCORES, told)
        pack = folder / "pack.jsonl"
        assert (
            make_pack([str(folder / "first"), "--benchmark", "llava", "--model", "good_one", str(pack)]) == 0
        )
        now = {"output": folder / "scores", "judge": judge(url, "judge-2026"), "calibration": {"llava": pack}}
        execute(SCORES, told.model_copy(update=now))
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


def test_every_figure_of_a_benchmark_has_a_board_with_its_denominator(results: Results) -> None:
    found = boards(results)
    assert not found["mmmb", "circular"].further and not found["mmmb", "plain"].further
    for name, figure in (
        ("xvnli", "accuracy valid"),
        ("xvnli", "accuracy, official rules"),
        ("xgqa", "accuracy, official rules"),
        ("mme", "perception"),
        ("llava", "macro"),
    ):
        assert found[name, figure].further and found[name, figure].rows
    # One gold label in the fixture is "-": it is in the first denominator and not in the second.
    of_all, valid = found["xvnli", "accuracy"].rows[0], found["xvnli", "accuracy valid"].rows[0]
    assert valid.cells["en"].n == of_all.cells["en"].n - 1 and valid.cells["en"].value == 100.0
    assert found["mme", "perception"].unit == "points" and found["mme", "accuracy"].unit == "%"
    assert not any(row.published for board in found.values() if board.further for row in board.rows)


def test_categories_have_a_table_per_benchmark_and_language(results: Results) -> None:
    assert results.benchmarks is not None
    found = {(one.benchmark, one.language): one for one in results.benchmarks.categories}
    assert {row.category for row in found["llava", "en"].rows} == {"complex", "conv", "detail"}
    assert found["mme", "en"].unit == "points"
    assert found["mme", "en"].rows[0].cells["good_one"].value == 200.0
    assert ("mmmb", "en") not in found  # all of the fixture's items are of one category


def test_what_stands_behind_a_judged_score_is_shown_with_the_drift_from_the_judge_before(
    results: Results,
) -> None:
    section = results.benchmarks
    assert section is not None
    found = {(one.model, one.benchmark, one.language): one for one in section.judging}
    good, poor = found["good_one", "llava", "en"], found["poor_one", "llava", "en"]
    assert (good.judge, good.answered_as, good.judged, good.failed) == ("judge-2026", {"judge-2026": 3}, 3, 0)
    assert good.place_bias is not None
    assert (good.place_bias.items, good.place_bias.answer_gains_by_standing_first) == (3, 2.0)
    assert (poor.judged, poor.failed, poor.reasons) == (2, 2, {"unreadable_review": 2})
    assert found["good_one", "unimm", "en"].place_bias is None
    [drift] = section.drift
    assert (drift.benchmark, drift.stored, drift.now) == ("llava", ["judge-2023"], ["judge-2026"])
    assert (drift.items, drift.bias_of_answers, drift.bias_of_references) == (6, -1.0, 1.0)


def test_judged_answers_can_be_read_with_what_the_judge_wrote(results: Results) -> None:
    assert results.benchmarks is not None
    shown = [one for one in results.benchmarks.answers if (one.benchmark, one.language) == ("llava", "en")]
    assert {one.why for one in shown} == {"review failed", "rated lowest", "rated highest"}
    failed = next(one for one in shown if one.why == "review failed")
    assert failed.model == "poor_one" and failed.answer == HOSTILE
    assert {(one.failure, one.text) for one in failed.reviews} == {
        ("unreadable_review", "I would rather not say.")
    }
    best = next(one for one in shown if one.why == "rated highest" and one.model == "good_one")
    assert [one.order for one in best.reviews] == ["reference_first", "answer_first"]
    assert (best.reviews[0].reference_score, best.reviews[0].answer_score) == (9, 7)
    assert len({(one.model, one.item) for one in shown if one.why != "review failed"}) == 5


def test_a_figure_that_only_some_data_has_gets_its_board_and_what_stayed_english_is_said() -> None:
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6, "standard_error": 0.05, "n": 10, "clusters": 10}
    of_model = {
        "mmmb": {
            language: {
                "headline": "circular", "circular": estimate, "plain": estimate, "unresolved": estimate, "pair": pair,
                "by_category": {}, "profiles": {}, "extraction_cost": {},
                "without_answer": 3 if language == "en" else 0,
            }
            for language, pair in (("en", None), ("zh", {**estimate, "n": 5}))
        }
    }  # fmt: skip
    left = {"mmmb": {"zh": Left(texts=40, english=40), "pt": Left(texts=40, english=0)}}
    found = leaderboards({"models": {"m": of_model}}, pivot="en", own_world=[], left=left)
    assert [board.figure for board in found] == ["circular", "plain", "pair"]
    assert found[2].further and found[2].rows[0].cells["zh"].n == 5 and "en" not in found[2].rows[0].cells
    for board in found:
        assert "Chinese was translated: 40 of 40 texts (100%) stayed English there" in board.note
        assert "Portuguese" not in board.note
        assert board.note.endswith(
            "m left 3 English questions without an answer to judge; they enter no score."
        )


def test_a_score_of_a_single_image_is_shown_without_an_interval(results: Results) -> None:
    assert results.benchmarks is not None
    found = next(
        one for one in results.benchmarks.categories if (one.benchmark, one.language) == ("llava", "en")
    )
    cell = found.rows[0].cells["good_one"]
    assert (cell.n, cell.low, cell.high) == (1, None, None)
    assert found.rows[0].cells.keys() == {"good_one", "poor_one"}
    several = boards(results)["mmmb", "plain"].rows[0].cells["en"]
    assert several.n == 6 and several.low is not None


def test_a_radars_shape_has_no_corner_where_a_model_was_not_measured() -> None:
    axes = [("English", 100.0), ("Chinese", 100.0), ("Arabic", 100.0), ("MME", 2800.0)]
    chart = radar([*axes], [("whole", [50.0, 50.0, 50.0, 1400.0]), ("part", [50.0, None, 50.0, None])])
    shapes = re.findall(r'<polygon points="([^"]*)" style', chart)
    whole, part = ([tuple(corner.split(",")) for corner in shape.split()] for shape in shapes)
    assert len(whole) == 4 and part == [whole[0], whole[2]]
    assert "Chinese not measured" in chart and "to 2800" in chart


def a_board(benchmark: str, values: dict[str, dict[str, float]]) -> Leaderboard:
    """A board of these models, each with its scores by language."""
    rows = [
        Row(model=name, published=False, source="this run", mean=None, gap=None,
            cells={language: Cell(value=value) for language, value in scores.items()})
        for name, scores in values.items()
    ]  # fmt: skip
    languages = list(dict.fromkeys(language for scores in values.values() for language in scores))
    return Leaderboard(
        benchmark=benchmark, title=benchmark, figure="plain", unit="%", best=100.0, languages=languages, rows=rows, note="",
    )  # fmt: skip


def test_a_model_has_one_colour_in_all_radars_and_those_without_one_are_named(
    results: Results,
) -> None:
    assert results.benchmarks is not None
    scores = {"en": 50.0, "zh": 40.0, "ar": 30.0}
    names = [f"model {place}" for place in range(8)]
    first = a_board("mmmb", dict.fromkeys(names, scores))
    second = a_board("mmbench", dict.fromkeys(names[2:], scores))
    section = results.benchmarks.model_copy(update={"leaderboards": [first, second]})
    found = drawn(results.model_copy(update={"benchmarks": section}))
    for chart in (found["radars"]["mmmb, plain"], found["radars"]["mmbench, plain"]):
        colours = dict(re.findall(r"stroke:var\(--c(\d)\).*?<title>(model \d):", chart))
        assert colours and all(name == f"model {int(colour) - 1}" for colour, name in colours.items())
    assert found["not_in_radars"] == ["model 6", "model 7"]
    text = render(results.model_copy(update={"benchmarks": section, "gallery": []}), {}, {})
    assert "Of 8 models, the 6 that have a colour are drawn; in the tables alone: model 6, model 7." in text


def test_a_long_name_is_shortened_in_a_chart_and_whole_where_the_pointer_rests() -> None:
    name = "Qwen2.5-VL-7B-Instruct-with-a-very-long-name-indeed-4bit"
    chart = dots([(name, [("English", None)])], aim=None, colours={})
    shown, whole = re.findall(r"halo\">([^<]*)<title>([^<]*)</title>", chart)[0]
    assert len(shown) == 44 and shown.startswith("Qwen2.5-VL") and shown.endswith("-4bit") and whole == name


def test_downloads_hold_names_that_would_break_them() -> None:
    names = ["[ours] a|b", "<b>50 %</b> & $x$", "two\n\nlines", "=SUM(A1)"]
    boards = [a_board("mmmb", {name: {"en": 50.0} for name in names})]
    latex = as_latex(boards)
    assert r"{[}ours] a\textbar{}b & 50.0" in latex
    assert r"\textless{}b\textgreater{}50 \%\textless{}/b\textgreater{} \& \$x\$ & 50.0" in latex
    assert "two lines & 50.0" in latex
    lines = [line for line in as_markdown(boards).splitlines() if line.startswith("|")]
    unescaped = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
    assert len(lines) == 2 + len(names) and set(unescaped) == {5}
    assert r"| \<b\>50 %\</b\> \& \$x\$ |" in lines[3]
    rows = list(csv.DictReader(io.StringIO(as_csv(boards))))
    assert [row["model"] for row in rows] == [*names[:3], "'=SUM(A1)"]


def test_the_charts_at_the_top_leave_out_what_nobody_was_asked_and_name_more_languages_than_colours(
    report: Path,
) -> None:
    top = (report / "index.html").read_text(encoding="utf-8").partition('id="benchmarks"')[0]
    assert "Four options, circular" in top and "Open questions, content" not in top
    assert "not measured" not in top
    assert top.count(">Turkish</text>") == 2 and "Bengali</text>" not in top and 'class="k1"' not in top


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
    for words, name, begin in (
        ("CSV", "leaderboards.csv", "benchmark,figure,unit,model"),
        ("Markdown", "leaderboards.md", "## LLaVA Test Set: relative, %"),
        ("LaTeX", "leaderboards.tex", r"\begin{table}[t]"),
    ):
        with page.expect_download() as downloading:
            page.get_by_role("link", name=words).click()
        assert downloading.value.suggested_filename == name
        text = Path(downloading.value.path()).read_text(encoding="utf-8")
        assert text.startswith(begin) and text == next(report.glob(f"*/{name}")).read_text(encoding="utf-8")
    assert page.locator("script").count() == 0 and HOSTILE in (page.text_content("#benchmarks") or "")
    page.close()


def test_the_section_is_in_the_json_too(report: Path) -> None:
    document = json.loads((report / "results.json").read_text())
    assert document["benchmarks"]["experts"] == {"good_one": {"en": [0.7, 0.2, 0.1], "zh": [0.1, 0.8, 0.1]}}
