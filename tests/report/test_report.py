"""Guarantees of the report: one page that fetches nothing and shows nothing as markup that others wrote,
and a JSON document that says the same."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.lake.ledger import Ledger
from pipelines.report.spec import CARDS, STAGE, ReportParameters, ReportSpec
from pipelines.report.terminal import read_results, terminal_table
from pipelines.stage import execute
from tests.report.conftest import model_table


class Page(HTMLParser):
    """Tags with their attributes, and the text, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def made(report_inputs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = tmp_path_factory.mktemp("made") / "report"
    execute(STAGE, ReportSpec(output=table, **report_inputs))
    return table


@pytest.fixture(scope="module")
def page(made: Path) -> Page:
    return Page((made / "index.html").read_text(encoding="utf-8"))


def test_the_page_refers_to_nothing_outside_itself(made: Path, page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            value = attributes.get(name)
            assert (
                value is None
                or value.startswith(("#", "data:image/"))
                or ("download" in attributes and value.startswith("data:text/"))
                or value.startswith("data:application/x-tex")
                or (tag == "a" and (made / value).parent == made / CARDS and (made / value).is_file())
            ), (tag, name, value)
    style = re.search(r"<style>(.*?)</style>", (made / "index.html").read_text(), re.DOTALL)
    assert style is not None and "url(" not in style[1] and "@import" not in style[1]


def test_hostile_captions_and_answers_are_shown_as_words(page: Page) -> None:
    # As a caption, and as an answer to the first question of the gallery in each language.
    assert page.text.count("<script>alert") >= 3
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert all(str(attributes["src"]).startswith("data:") for tag, attributes in page.tags if tag == "img")


def test_page_and_json_say_the_same_figures(made: Path, page: Page) -> None:
    results = read_results(made / "results.json")
    assert {finding.figure for finding in results.findings} <= set(re.findall(r"\d+%", page.text))
    for aim in results.aims:
        assert aim.name in page.text
    for crawl in results.crawls.values():
        assert crawl.quality is not None and crawl.quality.precision is not None
        assert f"{crawl.quality.precision:.1%}" in page.text
        for step in crawl.steps:
            assert step.rows_in == step.kept + sum(step.dropped.values())


def test_the_translator_stands_beside_what_a_paper_gives_for_its_own(
    report_inputs: dict[str, Any], tmp_path: Path
) -> None:
    signature = "nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|version:2.6.0"
    metrics = {
        "test_set": "wmt17",
        "pair": "en-zh",
        "segments": 2001,
        "bleu": 30.25,
        "bleu_signature": signature,
    }
    scored = model_table(tmp_path, "wmt17", "translation_benchmark", metrics)
    spec = ReportSpec(output=tmp_path / "report", **report_inputs, test_sets={"wmt17_en_zh": scored})
    execute(STAGE, spec)
    results = json.loads((tmp_path / "report/results.json").read_text(encoding="utf-8"))
    (found,) = results["translation"]["test_sets"]
    assert (found["bleu"], found["signature"]) == (30.25, signature)
    assert list(found["published"].values()) == [41.6]
    shown = Page((tmp_path / "report/index.html").read_text(encoding="utf-8")).text
    assert "BLEU as published" in shown
    assert "41.6" in shown


def test_the_filter_is_held_against_the_truth(made: Path) -> None:
    crawl = read_results(made / "results.json").crawls["week-1"]
    assert crawl.quality is not None and crawl.histogram is not None and crawl.histogram.good is not None
    assert (crawl.quality.precision or 0) > 0.9 and (crawl.quality.recall or 0) > 0.9
    arrived = sum(fault.downloaded for fault in crawl.quality.faults)
    assert sum(crawl.histogram.counts) == arrived == crawl.steps[0].kept
    assert sum(crawl.histogram.good) == sum(one.downloaded for one in crawl.quality.faults if one.is_good)
    assert crawl.histogram.threshold == 0.18


def test_the_claims_follow_the_scores(made: Path) -> None:
    results = read_results(made / "results.json")
    pretrained, pivot_only, blend = results.findings
    asked = {
        name: model["language"]["zh"]["asked"]["value"] for name, model in results.scores["models"].items()
    }
    assert pivot_only.figure == f"{asked['english_only']:.0%}" and asked["english_only"] < 0.6
    assert blend.figure == f"{asked['blend']:.0%}"
    assert pretrained.agrees and pivot_only.agrees


def test_every_table_and_every_file_of_weights_is_named_with_its_digest(
    made: Path, report_inputs: dict[str, Any]
) -> None:
    results = read_results(made / "results.json")
    versions = {table.name: table.data_version for table in results.tables}
    assert versions["foundations/clip"] == manifest.read(report_inputs["foundations"]["clip"]).data_version
    assert {"benchmarks/world", "scores", "raw_pairs/week-1", "answers/blend", "models/pretrained"} <= set(
        versions
    )
    assert all(len(file.sha256) == 64 for file in results.weights) and len(results.weights) == 5


def test_the_gallery_shows_each_image_once_with_both_languages_and_every_model(
    made: Path, page: Page
) -> None:
    gallery = read_results(made / "results.json").gallery
    assert len(gallery) == ReportParameters().gallery_items
    opened = [item.image_sha256 for item in gallery if item.benchmark == "open"]
    assert len(opened) == len(set(opened))
    for item in gallery:
        assert [question.language for question in item.questions] == ["en", "zh"]
        for question in item.questions:
            assert [said.model for said in question.answers] == ["pretrained", "english_only", "blend"]
    thumbnails = 2
    assert sum(tag == "img" for tag, _ in page.tags) == len(gallery) + thumbnails


def test_an_unchanged_report_is_reused_and_stands_at_a_stable_place(
    report_spec: ReportSpec, capfd: pytest.CaptureFixture[str]
) -> None:
    first = execute(STAGE, report_spec)
    again = execute(STAGE, report_spec)
    assert first == again and "reused" in capfd.readouterr().err
    assert (report_spec.output / "index.html").is_file() and (report_spec.output / "results.json").is_file()


def test_sections_without_input_are_left_out(report_inputs: dict[str, Any], tmp_path: Path) -> None:
    least = {name: report_inputs[name] for name in ("scores", "benchmarks")}
    execute(STAGE, ReportSpec(output=tmp_path, **least))
    text = (tmp_path / "index.html").read_text()
    assert 'id="scores"' in text
    assert 'id="data"' not in text and 'id="gallery"' not in text and 'id="losses"' not in text
    # Nothing is said about a training that the report knows nothing of.
    assert "Vision was aligned" not in text and "3 models on the same questions" in text


def test_a_sweep_over_shares_draws_a_curve_with_a_point_per_model(
    report_inputs: dict[str, Any], tmp_path: Path
) -> None:
    swept = ReportParameters(shares={"blend": 0.5, "english_only": 0.0})
    execute(STAGE, ReportSpec(output=tmp_path, parameters=swept, **report_inputs))
    results = read_results(tmp_path / "results.json")
    assert [point.share for point in results.shares["zh"]] == [0.0, 0.5]
    assert results.shares["zh"][0].asked is not None and results.shares["zh"][0].asked.value < 0.6
    text = (tmp_path / "index.html").read_text()
    assert 'id="shares"' in text and text.count('class="curve"') == 3
    assert "50% Chinese" in terminal_table(results)


def test_a_sweep_that_names_an_unscored_model_is_refused(
    report_inputs: dict[str, Any], tmp_path: Path
) -> None:
    swept = ReportParameters(shares={"nobody": 0.5})
    with pytest.raises(BadInput, match="nobody"):
        execute(STAGE, ReportSpec(output=tmp_path, parameters=swept, **report_inputs))


def test_the_terminal_table_fits_and_names_every_model_and_aim(made: Path) -> None:
    results = read_results(made / "results.json")
    table = terminal_table(json.loads((made / "results.json").read_text()))
    assert table == terminal_table(results)
    assert max(map(len, table.splitlines())) <= 100
    assert all(aim.name in table for aim in results.aims)
    assert all(name in table for name in ("Pretrained", "English-only tuning", "Blend"))


def test_show_prints_the_table_and_refuses_what_is_no_result(made: Path, tmp_path: Path) -> None:
    def show(path: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipelines.report", "show", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "Circular accuracy" in show(made / "results.json").stdout
    other = tmp_path / "other.json"
    other.write_text("{}")
    refused = show(other)
    assert refused.returncode == 42 and str(other) in refused.stderr


def test_the_data_section_shows_statistics_and_a_sample_of_pairs(made: Path, page: Page) -> None:
    crawl = read_results(made / "results.json").crawls["week-1"]
    assert [pair.kind for pair in crawl.pairs] == ["kept", "borderline", "dropped"]
    assert "caption cut" in page.text and "no image" in page.text
    assert "3 of the scored pairs lie within 0.001 of the threshold" in " ".join(page.text.split())
    for title in ("Top domains", "Resolution: shorter side, pixels", "Language of the caption"):
        assert title in page.text
    assert "Caption length, characters" not in page.text, "a dimension without counts is left out"
    assert all(step.seconds > 0 for step in crawl.steps) and "Rows/s of the run" in page.text
    assert [step.work_rates for step in crawl.steps if step.work_rates] == [{"pairs_per_second": 312.5}]
    assert "312.5 pairs/s" in page.text


def test_crawls_of_one_source_are_drawn_with_the_one_that_drifted(
    report_inputs: dict[str, Any], tmp_path: Path
) -> None:
    inputs = dict(report_inputs)
    inputs["filtered_pairs"] = dict(inputs["filtered_pairs"])
    table = inputs["filtered_pairs"]["week-1"]
    read = manifest.read(table)
    assert read.ledger is not None
    dropped = {"score_below_threshold": read.ledger.rows_in}
    for number in (2, 3):
        other = tmp_path / f"week-{number}"
        shutil.copytree(table, other)
        ledger = read.ledger if number == 2 else Ledger(rows_in=read.ledger.rows_in, kept=0, dropped=dropped)
        manifest.write(other, read.model_copy(update={"ledger": ledger}))
        inputs["filtered_pairs"][f"week-{number}"] = other
    parameters = ReportParameters(
        sources={f"week-{number}": "https://example.org/list" for number in (1, 2, 3)}
    )
    execute(STAGE, ReportSpec(output=tmp_path / "report", parameters=parameters, **inputs))
    found = read_results(tmp_path / "report/results.json").drift["https://example.org/list"]
    assert [point.crawl for point in found] == ["week-1", "week-2", "week-3"]
    assert found[2].low is not None and found[2].keep_rate < found[2].low
    assert "Drift: share kept" in (tmp_path / "report/index.html").read_text()


def test_every_scored_model_has_a_card_with_its_scores(made: Path, page: Page) -> None:
    results = read_results(made / "results.json")
    assert results.benchmarks is not None
    board = next(one for one in results.benchmarks.leaderboards if one.benchmark == "mmmb")
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    versions = {table.name: table.data_version for table in results.tables}
    for name in ("pretrained", "english_only", "blend"):
        card = ModelCard((made / CARDS / f"{name}.md").read_text(encoding="utf-8"))
        cells = next(row.cells for row in board.rows if row.model == name)
        found = {
            (one.dataset_type, one.metric_type, one.dataset_config): one.metric_value
            for one in card.data.eval_results or []
        }
        assert {language: found["mmmb", board.figure, language] for language in cells} == {
            language: cell.value for language, cell in cells.items()
        }
        assert versions[f"answers/{name}"] in card.text and f"cards/{name}.md" in links


def test_a_model_that_left_the_report_takes_its_card_along(report_spec: ReportSpec) -> None:
    execute(STAGE, report_spec)
    assert (report_spec.output / CARDS / "blend.md").is_file()
    fewer = {name: table for name, table in report_spec.models.items() if name != "blend"}
    execute(STAGE, report_spec.model_copy(update={"models": fewer}))
    assert {path.name for path in (report_spec.output / CARDS).iterdir()} == {
        "pretrained.md", "english_only.md",
    }  # fmt: skip
