"""Our profiles give the scores of the tools themselves on the same answers; `parity/scores.json` holds what these gave.

The sets of answers are ours, drawn from seeds: right, wrong and unreadable, in the benchmark's languages; "gaps" are sets in
which answers are missing. Each tool's own scoring ran over them, from its data files to its last number, judges replaced
by what they wrote or by the tool's exact matching:

vlmevalkit      VLMEvalKit e8e78f05: ImageMCQDataset and ImageYORNDataset, on files in its format
parrot-2024-08  the fork of it in AIDC-AI/Parrot 989d6d01, likewise; its LLaVABench_score
lmms-eval       lmms-eval 75571cfe: process_results and the aggregations of each task, MMBench_Evaluator without a judge
official        MME's calculation.py (branch Evaluation, dd295090), eval_science_qa.py of LLaVA c121f043, and of IGLUE
                43cbac91 GQA_score.py and, with the label's class as the highest score, compute_score_with_logits;
                of Muffin 85d72b4b, for UniMM-Bench, the summary of its reviews
LLaVA, Muffin   LLaVA c121f043 and Muffin 85d72b4b (by which VisCPM was scored): reading and summary of the judge's reviews
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.benchmarks import answers, judged, scoring
from pipelines.benchmarks.benchmark import Judged, catalogue
from pipelines.benchmarks.files import IMAGES, Files
from pipelines.benchmarks.question import Asked, Key
from pipelines.judge import reading
from pipelines.judge.items import Review
from pipelines.judge.spec import Judge
from pipelines.lake import manifest
from pipelines.remote.spec import Server
from pipelines.score_answers.spec import STAGE, ScoreAnswersSpec
from pipelines.stage import execute
from tests.benchmarks import published
from tests.benchmarks.conftest import publish

CASES = json.loads((Path(__file__).parent / "parity/scores.json").read_text(encoding="utf-8"))
JUDGED = ("llava", "unimm")
TURN = 1_000_000


def name(case: dict[str, Any]) -> str:
    return f"{case['benchmark']}-{case['language']}" + ("-gaps" if case["gaps"] else "")


def asked_and_answered(case: dict[str, Any], folder: Path) -> tuple[list[Asked], dict[Key, answers.Answer]]:
    """The questions of a case as they are read from a file in the published format, and the answers."""
    benchmark, language, items = case["benchmark"], case["language"], case["items"]
    said: dict[tuple[str, int], str | None]
    if benchmark in ("xgqa", "xvnli"):
        pq.write_table(pa.table({"name": ["0.jpg"], "image": [published.png(0)]}), folder / IMAGES)
        said = {(item, 0): answer for item, _, answer in items}
        short_answers(case, folder)
    elif benchmark == "mme":
        said = {(str(index), 0): answer for index, *_, answer in items}
        rows = [
            [str(index), task, pair, f"Is it {index}? Please answer yes or no.", gold, published.encoded(0)]
            for index, task, pair, gold, _ in items
        ]
        columns = ["index", "category", "image_path", "question", "answer", "image"]
        published.tsv(folder / f"mme_{language}.tsv", columns, rows)
    else:
        said = {(str(index), turn): one for index, *_, given in items for turn, one in enumerate(given)}
        choices(case, folder)
    asked = catalogue()[benchmark].questions(Files.in_folder(folder), language)
    found = {
        one.key: answers.row(one, answer)
        for one in asked
        if (answer := said.get((one.item, one.rotation))) is not None
    }
    assert len(found) == sum(answer is not None for answer in said.values())
    return asked, found


def choices(case: dict[str, Any], folder: Path) -> None:
    """Of MMBench with the rotations, as published."""
    letters = "ABCDE" if case["benchmark"] == "scienceqa" else "ABCD"
    rows = []
    for index, options, gold, category, ability, given in case["items"]:
        for turn in range(len(given)):
            turned = [*options[turn:], *options[:turn], *[""] * (len(letters) - len(options))]
            right = letters[(letters.index(gold) - turn) % len(options)]
            image = str(index) if turn else published.encoded(index % 256)
            rows.append(
                [str(index + turn * TURN), image, f"question {index}?", "", *turned, right, category, ability]
            )
    ability = "l2-category" if case["benchmark"] == "mmbench" else "l2_category"
    columns = ["index", "image", "question", "hint", *letters, "answer", "category", ability]
    published.tsv(folder / f"{case['benchmark']}_{case['language']}.tsv", columns, rows)


def short_answers(case: dict[str, Any], folder: Path) -> None:
    if case["benchmark"] == "xgqa":
        document = {
            item: {"question": f"{item}?", "imageId": "0", "answer": gold} for item, gold, _ in case["items"]
        }
        (folder / f"xgqa_{case['language']}.json").write_text(json.dumps(document))
    else:
        lines = [
            {"gold_label": gold, "sentence2": "a statement", "pairID": item, "Flikr30kID": "0"}
            for item, gold, _ in case["items"]
        ]
        published.lines(folder / f"xvnli_{case['language']}.jsonl", lines)


@pytest.mark.parametrize("case", [one for one in CASES if one["benchmark"] not in JUDGED], ids=name)
def test_the_scores_are_the_tools_own(case: dict[str, Any], tmp_path: Path) -> None:
    benchmark = catalogue()[case["benchmark"]]
    asked, given = asked_and_answered(case, tmp_path)
    assert case["scores"].keys() == benchmark.readers.keys() - {"robust"}
    for profile, expected in case["scores"].items():
        items = scoring.read(benchmark, profile, asked, given).items
        found = scoring.estimates(benchmark, profile, items)
        figures = {figure: value for figure, value in expected.items() if figure != "categories"}
        ours = {figure: one.value for figure in figures if (one := found[figure]) is not None}
        assert ours == pytest.approx(figures, rel=1e-12), profile
        if categories := expected.get("categories"):
            assert by_category(items, next(iter(figures))) == pytest.approx(categories, rel=1e-12), profile


def test_the_stage_writes_these_scores(tmp_path: Path) -> None:
    case = next(one for one in CASES if name(one) == "mmbench-ar-gaps")
    (tmp_path / "table/made").mkdir(parents=True)
    (tmp_path / "answers/made").mkdir(parents=True)
    _, given = asked_and_answered(case, tmp_path / "table/made")
    answers.write(given.values(), tmp_path / "answers/made" / answers.FILE)
    spec = ScoreAnswersSpec(
        output=tmp_path / "scores",
        answers={"model": publish(tmp_path / "answers", "answers")},
        benchmarks={"mmbench": publish(tmp_path / "table", "benchmark")},
    )
    execute(STAGE, spec)
    document = json.loads(manifest.file(tmp_path / "scores", "scores.json").read_text())
    profiles = document["models"]["model"]["mmbench"]["ar"]["profiles"]
    found = {profile: profiles[profile]["circular"]["value"] for profile in case["scores"]}
    assert found == {profile: round(said["circular"], 4) for profile, said in case["scores"].items()}


def by_category(items: Sequence[Judged], figure: str) -> dict[str, float]:
    groups: dict[str, list[float]] = defaultdict(list)
    for one in items:
        groups[one.category].append(one.values[figure])
    return {category: sum(values) / len(values) for category, values in groups.items()}


def document(case: dict[str, Any]) -> dict[str, Any]:
    """The scores of a case's reviews, each as the judge wrote it."""
    benchmark = catalogue()[case["benchmark"]]
    protocol = benchmark.protocol
    assert protocol is not None
    reviews = []
    for item, category, text in case["items"]:
        found, failure = reading.scores(text, protocol, "published")
        reference, answer = (None, None) if failure else found if protocol == "pair" else (None, found[0])
        reviews.append(
            Review(
                item, case["language"], category, "reference_first", reference, answer, failure, text, "judge"
            )
        )
    asked = [
        Asked(benchmark.name, case["language"], item, 0, "", "", (), "", category, b"", item)
        for item, category, _ in case["items"]
    ]
    by = Judge(server=Server(base_url="http://127.0.0.1:1/v1", model="judge"), protocol=protocol, swap=False)
    return judged.document(benchmark, asked, reviews, by)


@pytest.mark.parametrize("case", [one for one in CASES if one["benchmark"] in JUDGED], ids=name)
def test_of_the_judges_reviews_the_scores_are_the_tools_own(case: dict[str, Any]) -> None:
    ours = document(case)
    exact = {"relative": ours["relative"], **{k: v["relative"] for k, v in ours["by_category"].items()}}
    rounded = {"relative": ours["judgement"]["pooled"], **ours["judgement"]["categories"]}
    assert bool(ours["failed"]) == case["gaps"]
    for tool, expected in case["scores"].items():
        if tool == "parrot-2024-08":
            found = {part: 100 * one["value"] for part, one in exact.items()}
            assert found == pytest.approx(expected, abs=0.005)
        else:
            figure = "score" if case["benchmark"] == "unimm" else "score_as_published"
            assert {part: one[figure] for part, one in rounded.items()} == expected, tool
