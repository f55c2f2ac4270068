"""Every published benchmark: fetched, frozen, read, asked with exactly these prompts, and scored."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import tracemalloc
from pathlib import Path

import pytest

from pipelines.benchmark_files.spec import STAGE, BenchmarkFilesSpec
from pipelines.benchmarks import answers, suite
from pipelines.benchmarks.benchmark import catalogue
from pipelines.benchmarks.question import Asked
from pipelines.benchmarks.sets import xvnli
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.score_answers.spec import STAGE as SCORES
from pipelines.score_answers.spec import ScoreAnswersSpec
from pipelines.stage import execute
from tests.benchmarks import published
from tests.benchmarks.conftest import publish
from tests.benchmarks.scored import answered, scores

SNAPSHOT = Path(__file__).parent / "prompts.txt"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A fetched table per benchmark."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "files").mkdir()
    images = published.images(folder / "images")
    made = {}
    for name, files in published.everything(folder / "files").items():
        made[name] = folder / name
        execute(STAGE, BenchmarkFilesSpec(output=made[name], benchmark=name, files=files, images=images))
    return made


def test_every_benchmark_of_the_papers_is_there_in_all_its_languages(tables: dict[str, Path]) -> None:
    found = {(one.benchmark, one.language) for one in suite.load(tables.values())}
    expected = {
        (benchmark.name, language)
        for benchmark in catalogue().values()
        for language in benchmark.languages
        if benchmark.name not in ("open", "llava")  # the world's own; and five languages come by translation
    }
    assert found == expected | {("llava", "en"), ("llava", "zh")}


def test_images_lie_once_on_disk_for_all_languages_and_not_in_memory(tmp_path: Path) -> None:
    """Six languages of one benchmark, with the same images in each."""
    contents = [os.urandom(100_000) for _ in range(40)]
    columns = ["index", "image", "question", "A", "B", "answer"]
    (tmp_path / "table/made").mkdir(parents=True)
    for language in ("en", "zh", "pt", "ar", "tr", "ru"):
        rows = [
            [str(place), base64.b64encode(content).decode(), f"Which {place}?", "red", "green", "A"]
            for place, content in enumerate(contents)
        ]
        published.tsv(tmp_path / f"table/made/mmmb_{language}.tsv", columns, rows, quoted=False)
    table = publish(tmp_path / "table", "benchmark_files")
    (tmp_path / "scratch").mkdir()
    suite.load([table], ["en"])  # what is imported on the way is not counted below
    tracemalloc.start()
    asked = suite.load([table], scratch=tmp_path / "scratch")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(asked) == 6 * 40 * 2 and len({id(one.image) for one in asked}) == 40
    assert all(one.image_sha256 == hashlib.sha256(one.image).hexdigest() for one in asked)
    assert held < sum(map(len, contents)) / 4
    assert not list((tmp_path / "scratch").iterdir())


def test_the_prompts_are_exactly_these(tables: dict[str, Path]) -> None:
    asked = suite.load(tables.values())
    first = {(one.benchmark, one.language): one for one in reversed(asked) if one.rotation == 0}
    shown = "".join(f"== {place[0]} {place[1]}\n{one.prompt}\n" for place, one in sorted(first.items()))
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(shown, encoding="utf-8")
    assert shown == SNAPSHOT.read_text(encoding="utf-8"), "a changed prompt is another benchmark"


@pytest.mark.parametrize("world_first", [True, False])
def test_beside_the_world_published_questions_are_asked_as_without_it(
    tables: dict[str, Path], benchmarks: Path, tmp_path: Path, world_first: bool
) -> None:
    """The world brings files of MMMB's layout, in two languages, and its own request for an answer."""
    shutil.copytree(benchmarks / "made", tmp_path / "world/made")
    (tmp_path / "world/made/requests.json").write_text(
        '{"en": "Answer with the option.", "zh": "用选项回答。"}'
    )
    world = publish(tmp_path / "world", "world")
    (tmp_path / "files").mkdir()
    for language in ("en", "ar"):
        published.mmmb(tmp_path / "files", language)
    files = {path.name: path for path in (tmp_path / "files").iterdir()}
    mmmb = tmp_path / "mmmb"
    execute(STAGE, BenchmarkFilesSpec(output=mmmb, benchmark="mmmb", files=files))
    alone = suite.load([mmmb, tables["mmbench"]])
    both = suite.load([world, mmmb, tables["mmbench"]] if world_first else [mmmb, tables["mmbench"], world])
    words = {one.key: (one.prompt, one.image_sha256) for one in both}
    assert {key: found for key, found in words.items() if key[0] != "open"} == {
        one.key: (one.prompt, one.image_sha256) for one in alone
    }
    assert {(one.benchmark, one.language) for one in both if one.benchmark in ("mmmb", "open")} == {
        ("mmmb", "en"), ("mmmb", "ar"), ("open", "en"), ("open", "zh"),
    }  # fmt: skip
    assert all("option." in one.prompt for one in suite.load([world], ["en"]) if one.options)


def test_a_model_that_answers_everything_rightly_gets_the_highest_scores(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    document = scores(tables, tmp_path, lambda asked: asked.gold)
    assert document["complete"]
    model = document["models"]["model"]
    for benchmark in catalogue().values():
        for language, found in model.get(benchmark.name, {}).items():
            for profile, figures in found["profiles"].items():
                # "-" is no answer: nothing can be right there. MME's fixture has two of fourteen tasks.
                best = {"mme": 400.0, "xvnli": 0.75}.get(benchmark.name, 1.0)
                assert figures[found["headline"]]["value"] == pytest.approx(best), (
                    benchmark.name,
                    language,
                    profile,
                )
    assert model["xvnli"]["ar"]["accuracy_valid"]["value"] == 1.0
    assert model["xvnli"]["ar"]["accuracy"]["n"] == 4 and model["xvnli"]["ar"]["accuracy_valid"]["n"] == 3
    assert model["llava"]["en"]["relative"]["value"] == pytest.approx(1.0)
    assert model["llava"]["en"]["judge"] == "reference_overlap" and not model["llava"]["en"]["is_a_model"]


def test_the_prompts_words_are_xvnlis_classes_under_its_own_rules(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    def says(asked: Asked) -> str:
        words = dict(zip(xvnli.LABELS, xvnli.VERBALISER[asked.language], strict=True))
        return words.get(asked.gold, words["neutral"])

    found = scores({"xvnli": tables["xvnli"]}, tmp_path, says)["models"]["model"]["xvnli"]
    for language in xvnli.VERBALISER:
        profiles = found[language]["profiles"]
        assert profiles["official"]["accuracy_valid"]["value"] == 1.0
        assert profiles["robust"]["accuracy_valid"]["value"] == 1.0
        assert found[language]["extraction_cost"]["official"]["headline"] == 0.0
    # Exactly: another case or a full stop is no class.
    capital = scores(
        {"xvnli": tables["xvnli"]}, tmp_path / "capital", lambda asked: says(asked).title() + "."
    )
    for of_language in capital["models"]["model"]["xvnli"].values():
        assert of_language["profiles"]["official"]["accuracy"]["value"] == 0.0
        assert of_language["profiles"]["robust"]["accuracy_valid"]["value"] == 1.0


def test_i_do_not_know_is_no_answer(tables: dict[str, Path], tmp_path: Path) -> None:
    words = {
        "en": "No idea",
        "zh": "不知道",
        "pt": "Não sei",
        "ar": "لا أعرف",
        "es": "No lo sé",
        "de": "Keine Ahnung",
    }
    some = {name: tables[name] for name in ("mme", "xvnli", "xgqa", "mmmb")}
    document = scores(some, tmp_path, lambda asked: words.get(asked.language, "Не знаю"))
    model = document["models"]["model"]
    for name in some:
        for language, found in model[name].items():
            assert found["unresolved"]["value"] == 1.0, (name, language)
            assert found["extraction"] == {"unresolved": found["items"]} or name == "mmmb"


def test_mme_points_are_accuracy_and_both_right(tables: dict[str, Path], tmp_path: Path) -> None:
    document = scores({"mme": tables["mme"]}, tmp_path, lambda asked: "Yes")
    found = document["models"]["model"]["mme"]["en"]
    # Half of the answers right, no image with both: 50 points per task, two tasks.
    assert (
        found["score"]["value"] == 100.0
        and found["perception"]["value"] == found["cognition"]["value"] == 50.0
    )
    assert found["profiles"]["official"]["task existence"]["value"] == 50.0


@pytest.mark.parametrize(
    ("before", "after", "message", "row"),
    [
        ("\tcode_reasoning\t", "\tcode reasoning\t", "the task 'code reasoning' is none of", 4),
        ("code_reasoning/1.png", "code_reasoning/9.png", "'code_reasoning/9.png' has 1 question", 4),
        ("existence/2.png", "existence/0.png", "'existence/0.png' has 3 question", 6),
    ],
)
def test_what_would_be_in_no_sum_of_mme_is_named(
    tmp_path: Path, before: str, after: str, message: str, row: int
) -> None:
    published.mme(tmp_path)
    path = tmp_path / "mme_en.tsv"
    path.write_text(path.read_text().replace(before, after, 1))
    spec = BenchmarkFilesSpec(output=tmp_path / "table", benchmark="mme", files={path.name: path})
    with pytest.raises(BadInput, match=re.escape(message)) as caught:
        execute(STAGE, spec)
    assert caught.value.where.startswith(f"{path}, row {row} ")


def test_chinese_yes_and_no_count_under_our_rules_alone(tables: dict[str, Path], tmp_path: Path) -> None:
    document = scores(
        {"mme": tables["mme"]}, tmp_path, lambda asked: {"yes": "是的。", "no": "不是"}[asked.gold]
    )
    found = document["models"]["model"]["mme"]["en"]
    assert found["score"]["value"] == 400.0
    assert (
        found["profiles"]["vlmevalkit"]["score"]["value"]
        == found["profiles"]["lmms-eval"]["score"]["value"]
        == 0.0
    )
    assert found["extraction_cost"]["vlmevalkit"] == {
        "headline": -400.0, "read_by_robust_alone": 1.0, "read_differently": 0.0,
    }  # fmt: skip


def test_mmbench_takes_its_rotations_as_they_are_published(tables: dict[str, Path]) -> None:
    asked = [one for one in suite.load([tables["mmbench"]], ["en"]) if one.item == "0"]
    assert [(one.rotation, one.options, one.gold) for one in asked] == [
        (0, ("red", "green"), "A"),
        (1, ("green", "red"), "B"),
    ]
    assert len({one.image_sha256 for one in asked}) == 1


def test_a_missing_answer_leaves_the_tools_denominators_and_is_wrong_in_ours(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    asked = suite.load([tables["xgqa"]], ["de"])
    table = answered(tmp_path / "answers", asked[:2], lambda one: one.gold)
    spec = ScoreAnswersSpec(
        output=tmp_path / "scores", answers={"m": table}, benchmarks={"xgqa": tables["xgqa"]}
    )
    execute(SCORES, spec)
    document = json.loads(manifest.file(tmp_path / "scores", "scores.json").read_text())
    profiles = document["models"]["m"]["xgqa"]["de"]["profiles"]
    assert not document["complete"]
    assert profiles["official"]["accuracy"] == {**profiles["official"]["accuracy"], "value": 1.0, "n": 2}
    assert profiles["robust"]["accuracy"]["value"] == pytest.approx(2 / 3, abs=1e-4)


def test_answers_to_another_prompt_are_refused(tables: dict[str, Path], tmp_path: Path) -> None:
    asked = suite.load([tables["mme"]])
    rows = [{**answers.row(one, "yes"), "prompt": "0" * 16} for one in asked]
    (tmp_path / "answers/made").mkdir(parents=True)
    answers.write(rows, tmp_path / "answers/made" / answers.FILE)  # type: ignore[arg-type]
    table = publish(tmp_path / "answers", "answers")
    spec = ScoreAnswersSpec(
        output=tmp_path / "scores", answers={"m": table}, benchmarks={"mme": tables["mme"]}
    )
    with pytest.raises(BadInput, match="another prompt"):
        execute(SCORES, spec)
