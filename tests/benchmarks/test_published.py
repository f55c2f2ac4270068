"""Every published benchmark: fetched, frozen, read, asked with exactly these prompts, and scored."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import re
import shutil
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines.benchmark_files.spec import STAGE, BenchmarkFilesSpec, Published
from pipelines.benchmarks import answers, suite
from pipelines.benchmarks.benchmark import catalogue
from pipelines.benchmarks.question import Asked
from pipelines.benchmarks.sets import xvnli
from pipelines.errors import BadInput
from pipelines.fingerprint import reusable
from pipelines.lake import identity, manifest
from pipelines.lake.identity import file_sha256
from pipelines.score_answers.spec import STAGE as SCORES
from pipelines.score_answers.spec import ScoreAnswersSpec
from pipelines.stage import execute
from tests.benchmarks import published
from tests.benchmarks.conftest import publish

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


def answered(table: Path, asked: list[Asked], reply: Any) -> Path:
    (table / "made").mkdir(parents=True)
    answers.write([answers.row(one, reply(one)) for one in asked], table / "made" / answers.FILE)
    return publish(table, "answers")


def scores(tables: dict[str, Path], folder: Path, reply: Any) -> dict[str, Any]:
    table = answered(folder / "answers", suite.load(tables.values()), reply)
    spec = ScoreAnswersSpec(output=folder / "scores", answers={"model": table}, benchmarks=tables)
    execute(SCORES, spec)
    document: dict[str, Any] = json.loads(manifest.file(folder / "scores", "scores.json").read_text())
    return document


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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A real web server, and the folder that it serves."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}", folder
    httpd.shutdown()
    httpd.server_close()


def fetch(output: Path, url: str, sha256: str | None = None) -> BenchmarkFilesSpec:
    urls: Any = {"mmmb_en.tsv": {"url": url, "sha256": sha256}}
    return BenchmarkFilesSpec(output=output, benchmark="mmmb", urls=urls)


def test_a_file_is_fetched_and_held_to_its_digest(server: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = server
    published.mmmb(folder, "en")
    url, digest = f"{address}/mmmb_en.tsv", hashlib.sha256((folder / "mmmb_en.tsv").read_bytes()).hexdigest()
    made = execute(STAGE, fetch(tmp_path / "table", url, digest))
    assert made.metrics["items"] == {"en": 6}
    frozen = json.loads((tmp_path / "table/frozen.json").read_text())
    assert frozen["mmmb_en.tsv"]["sha256"] == digest and "hint" in frozen["mmmb_en.tsv"]["columns"]
    with pytest.raises(BadInput, match="not the pinned"):
        execute(STAGE, fetch(tmp_path / "other", url, "0" * 64))
    with pytest.raises(BadInput, match="cannot be fetched"):
        execute(STAGE, fetch(tmp_path / "other", f"{address}/nothing.tsv"))


def test_a_file_that_changes_after_the_first_fetch_is_refused(
    server: tuple[str, Path], tmp_path: Path
) -> None:
    address, folder = server
    published.mmmb(folder, "en")
    execute(STAGE, fetch(tmp_path / "table", f"{address}/mmmb_en.tsv"))
    published.mmmb(folder, "en", count=5)
    with pytest.raises(BadInput, match="not the file that was fetched first"):
        execute(STAGE, fetch(tmp_path / "table", f"{address}/mmmb_en.tsv?again"))


def test_missing_images_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    published.xvnli(tmp_path / "files", "en")
    images = published.images(tmp_path / "images")
    (images / "1.jpg").unlink()
    spec = BenchmarkFilesSpec(
        output=tmp_path / "table", benchmark="xvnli", images=images,
        files={"xvnli_en.jsonl": tmp_path / "files/xvnli_en.jsonl"},
    )  # fmt: skip
    with pytest.raises(BadInput, match=r"1 of 2 images are missing, the first '1.jpg' \(of xvnli_en.jsonl\)"):
        execute(STAGE, spec)


def test_of_a_folder_of_images_only_those_that_the_files_name_are_read_and_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "files").mkdir()
    published.xvnli(tmp_path / "files", "en")
    images = published.images(tmp_path / "images")
    spec = BenchmarkFilesSpec(
        output=tmp_path / "table", benchmark="xvnli", images=images,
        files={"xvnli_en.jsonl": tmp_path / "files/xvnli_en.jsonl"},
    )  # fmt: skip
    made = execute(STAGE, spec)
    hashed: list[str] = []
    monkeypatch.setattr(
        identity, "file_sha256", lambda path: [hashed.append(path.name), file_sha256(path)][1]
    )
    (images / "another.jpg").write_bytes(b"of the same data set, and of no question")
    assert reusable(STAGE, spec) == made and set(hashed) == {"0.jpg", "1.jpg"}
    (images / "1.jpg").write_bytes(published.png(77))
    assert reusable(STAGE, spec) is None
    # What a file on the web names is not known before it is fetched: there the folder counts.
    on_the_web = {"xvnli_en.jsonl": Published(url="http://127.0.0.1:9/xvnli_en.jsonl")}
    assert spec.model_copy(update={"files": {}, "urls": on_the_web}).files_of("images") is None


@pytest.mark.parametrize(
    ("benchmark", "write", "name", "message"),
    [
        ("xgqa", published.xgqa, "xgqa_de.json", r"no prompt in the language 'fr'"),
        ("xvnli", published.xvnli, "xvnli_en.jsonl", r"no prompt in the language 'de'"),
    ],
)
def test_a_file_named_after_a_language_that_the_benchmark_lacks_is_refused(
    tmp_path: Path, benchmark: str, write: Any, name: str, message: str
) -> None:
    (tmp_path / "files").mkdir()
    write(tmp_path / "files", name.rpartition("_")[2].partition(".")[0])
    wrong = {"xgqa": "xgqa_fr.json", "xvnli": "xvnli_de.jsonl"}[benchmark]
    spec = BenchmarkFilesSpec(
        output=tmp_path / "table", benchmark=benchmark, images=published.images(tmp_path / "images"),
        files={wrong: tmp_path / "files" / name},
    )  # fmt: skip
    with pytest.raises(BadInput, match=message) as caught:
        execute(STAGE, spec)
    assert (
        caught.value.where == f"{spec.files[wrong]} ({wrong})" and "leave the file out" in caught.value.remedy
    )


@pytest.mark.parametrize("name", ["xgqa_german.json", "de.json", "../xgqa_de.json", "xgqa_de.jsonl"])
def test_a_file_of_a_name_by_which_nothing_reads_it_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "files").mkdir()
    published.xgqa(tmp_path / "files", "de")
    path = tmp_path / "files/xgqa_de.json"
    spec = BenchmarkFilesSpec(
        output=tmp_path / "table", benchmark="xgqa", images=published.images(tmp_path / "images"),
        files={"xgqa_de.json": path, name: path},
    )  # fmt: skip
    with pytest.raises(BadInput, match=f"xgqa reads no file of the name {name!r}") as caught:
        execute(STAGE, spec)
    assert "xgqa_answers_{language}.json" in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        ('{"yes": 1}', "the value is no text"),
        ('{"red": "rot"}', ""),
    ],
)
def test_words_that_a_table_brings_are_checked(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "files").mkdir()
    published.xgqa(tmp_path / "files", "de")
    (tmp_path / "files/xgqa_answers_de.json").write_text(content)
    spec = BenchmarkFilesSpec(
        output=tmp_path / "table", benchmark="xgqa", images=published.images(tmp_path / "images"),
        files={name: tmp_path / "files" / name for name in ("xgqa_de.json", "xgqa_answers_de.json")},
    )  # fmt: skip
    if not message:
        execute(STAGE, spec)
        return
    with pytest.raises(BadInput, match=message) as caught:
        execute(STAGE, spec)
    assert "xgqa_answers_de.json" in caught.value.where


@pytest.mark.parametrize(
    ("instances", "message"), [('"a dog"', "are no list"), ('[{"category": "dog"}]', "lacks bbox")]
)
def test_a_context_that_a_judge_could_not_be_shown_is_named(
    tmp_path: Path, instances: str, message: str
) -> None:
    (tmp_path / "files").mkdir()
    published.llava(tmp_path / "files", "en")
    path = tmp_path / "files/llava_context_en.jsonl"
    first, *others = path.read_text().splitlines()
    row = {**json.loads(first), "instances": json.loads(instances)}
    path.write_text("\n".join([json.dumps(row), *others]) + "\n")
    spec = BenchmarkFilesSpec(
        output=tmp_path / "table", benchmark="llava", images=published.images(tmp_path / "images"),
        files={one.name: one for one in (tmp_path / "files").iterdir()},
    )  # fmt: skip
    with pytest.raises(BadInput, match=message) as caught:
        execute(STAGE, spec)
    assert caught.value.where.endswith("llava_context_en.jsonl, line 1")


def test_unimm_as_a_mapping_needs_its_categories(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    published.unimm(tmp_path / "files", "en")
    path = tmp_path / "files/unimm_en.json"
    entries = json.loads(path.read_text())
    for entry in entries:
        entry.pop("category", None)
    path.write_text(json.dumps({f"q{place}": entry for place, entry in enumerate(entries)}))
    spec = BenchmarkFilesSpec(
        output=tmp_path / "table", benchmark="unimm", images=published.images(tmp_path / "images"),
        files={path.name: path},
    )  # fmt: skip
    with pytest.raises(BadInput, match="no category") as caught:
        execute(STAGE, spec)
    assert caught.value.where.endswith("unimm_en.json, entry q0")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("not json", "not JSON"),
        ('{"gold_label": "neutral"}', "lacks .*Flikr30kID"),
        (
            '{"gold_label": "maybe", "sentence2": "s", "pairID": "9", "Flikr30kID": "0"}',
            "gold_label is 'maybe'",
        ),
        ('{"gold_label": "-", "sentence2": "s", "pairID": "0.jpg#1r0", "Flikr30kID": "0"}', "stands twice"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "files").mkdir()
    published.xvnli(tmp_path / "files", "en")
    path = tmp_path / "files/xvnli_en.jsonl"
    path.write_text(path.read_text() + row + "\n")
    spec = BenchmarkFilesSpec(
        output=tmp_path / "table", benchmark="xvnli", images=published.images(tmp_path / "images"),
        files={path.name: path},
    )  # fmt: skip
    with pytest.raises(BadInput, match=message):
        execute(STAGE, spec)


def made_of(tmp_path: Path, name: str, file: str, text: str) -> BenchmarkFilesSpec:
    """The spec that fetches one file of this text."""
    path = tmp_path / file
    path.write_text(text, encoding="utf-8")
    images = published.images(tmp_path / "images")
    return BenchmarkFilesSpec(output=tmp_path / "table", benchmark=name, images=images, files={file: path})


STATEMENT = {"gold_label": "neutral", "sentence2": "s", "pairID": "a", "Flikr30kID": 0}
ASKED = {"question": "q?", "imageId": "0", "answer": "yes"}
OPEN = {"question": "q?", "answer": "a", "image": "0.jpg", "category": "GQA"}


@pytest.mark.parametrize(
    ("name", "file", "document", "message", "row"),
    [
        ("xvnli", "xvnli_ar.jsonl", STATEMENT | {"sentence2": None}, "sentence2 is null", ", line 1"),
        ("xvnli", "xvnli_ar.jsonl", STATEMENT | {"sentence2": " "}, 'sentence2 is " "', ", line 1"),
        ("xvnli", "xvnli_ar.jsonl", STATEMENT | {"Flikr30kID": ["0"]}, "Flikr30kID is ", ", line 1"),
        ("xgqa", "xgqa_de.json", {"7": ASKED | {"answer": None}}, "answer is null", ", entry 7"),
        ("xgqa", "xgqa_de.json", {"7": ASKED | {"question": ""}}, 'question is ""', ", entry 7"),
        ("unimm", "unimm_en.json", [OPEN, OPEN | {"answer": {}}], "answer is {}", ", entry 1"),
        ("unimm", "unimm_en.json", [OPEN | {"image": True}], "image is true", ", entry 0"),
    ],
)
def test_an_entry_with_nothing_to_ask_or_to_hold_an_answer_to_is_named(
    tmp_path: Path, name: str, file: str, document: Any, message: str, row: str
) -> None:
    with pytest.raises(BadInput, match=re.escape(message)) as caught:
        execute(STAGE, made_of(tmp_path, name, file, json.dumps(document)))
    # Of the file that was given, not of the stage's copy of it.
    assert caught.value.where == f"{tmp_path / file}{row}"


def test_a_file_without_a_question_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no questions") as caught:
        execute(STAGE, made_of(tmp_path, "xvnli", "xvnli_ar.jsonl", "\n"))
    assert caught.value.where == str(tmp_path / "xvnli_ar.jsonl")


def test_numbers_are_texts_and_a_line_separator_ends_no_line(tmp_path: Path) -> None:
    text = "one\u2028two\x85three"
    rows = [STATEMENT | {"sentence2": text}, STATEMENT | {"sentence2": 12, "pairID": 7}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows)
    execute(STAGE, made_of(tmp_path, "xvnli", "xvnli_ar.jsonl", lines))
    asked = suite.load([tmp_path / "table"])
    assert [one.question for one in asked] == [text, "12"] and [one.item for one in asked] == ["a", "7"]


def test_what_unimm_leaves_null_is_not_shown_to_the_judge(tmp_path: Path) -> None:
    entry = OPEN | {"category": "AOKVQA", "Human Answers": None, "context": None}
    execute(STAGE, made_of(tmp_path, "unimm", "unimm_en.json", json.dumps([entry])))
    [asked] = suite.load([tmp_path / "table"])
    assert asked.details == {"human_answers": "", "rationale": ""}


@pytest.mark.parametrize(
    ("change", "message", "place"),
    [
        (lambda header, row: (header, row.replace(published.encoded(0), "é" * 100)), "not base64", "row 2 (index '0')"),
        (lambda header, row: (header, row.replace("0\t", "\t", 1)), "the index is empty", "row 2 (index '')"),
        (lambda header, row: (header.replace("hint", "A"), row), "the column 'A' stands twice", "header"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_meant_is_named_in_the_file_that_was_given(
    tmp_path: Path, change: Callable[[str, str], tuple[str, str]], message: str, place: str
) -> None:
    published.mmmb(tmp_path, "en")
    path = tmp_path / "mmmb_en.tsv"
    header, first, *others = path.read_text().split("\n")
    path.write_text("\n".join([*change(header, first), *others]))
    spec = BenchmarkFilesSpec(output=tmp_path / "table", benchmark="mmmb", files={path.name: path})
    with pytest.raises(BadInput, match=re.escape(message)) as caught:
        execute(STAGE, spec)
    assert caught.value.where == f"{path}, {place}"


def test_an_unbalanced_quotation_mark_is_found_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    published.one_image_choices(tmp_path / "files", "mmstar")
    path = tmp_path / "files/mmstar_en.tsv"
    path.write_text(path.read_text().replace('some\nhint"', "some\nhint", 1))
    spec = BenchmarkFilesSpec(output=tmp_path / "table", benchmark="mmstar", files={path.name: path})
    with pytest.raises(BadInput, match="cells, the header 11"):
        execute(STAGE, spec)


YES_NO_QUESTIONS = {
    "en": ("Is there a {} in the picture?", ("dog", "cat"), ("Yes", "No")),
    "zh": ("图中有{}吗？", ("狗", "猫"), ("有", "没有")),
    "pt": ("Há um {} na imagem?", ("cão", "gato"), ("Sim", "Não")),
    "ar": ("هل يوجد {} في الصورة؟", ("كلب", "قط"), ("نعم", "لا يوجد")),
    "tr": ("{} resimde var mı?", ("Köpek", "Kedi"), ("Var", "Yok")),
    "ru": ("На картинке есть {}?", ("собака", "кошка"), ("Да", "Нет")),
}
"""Questions that share their first words in some languages, in others none."""


def yes_no_table(
    path: Path, pairs: int, *, singles: int = 0, language: str = "en", of_image: int = 2
) -> None:
    """Pairs of a yes and a no question, `of_image` questions about an image, and single ones."""
    question, things, words = YES_NO_QUESTIONS[language]
    rows: list[list[str]] = []

    def add(image: int, question: str, options: tuple[str, ...], answer: str) -> None:
        rows.append(
            [str(len(rows)), published.encoded(image), question, "", *options, answer, "existence", "test"]
        )

    for number in range(2 * pairs):
        add(number // of_image, question.format(things[number % 2]), words, "AB"[number % 2])
    for single in range(singles):
        add(90 + single, "Which?", ("one", "two"), "A")
    columns = ["index", "image", "question", "hint", "A", "B", "answer", "category", "split"]
    published.tsv(path, columns, rows, quoted=False)


def pair_scores(folder: Path, language: str = "en", **table: int) -> dict[str, Any]:
    """Scores of a model that is right on the first four items, and says A to the others."""
    yes_no_table(folder / f"mmmb_{language}.tsv", 10, language=language, **table)
    made = folder / "table"
    files = {f"mmmb_{language}.tsv": folder / f"mmmb_{language}.tsv"}
    execute(STAGE, BenchmarkFilesSpec(output=made, benchmark="mmmb", files=files))
    found = scores({"mmmb": made}, folder, lambda asked: asked.gold if asked.item in "0123" else "A")
    figures: dict[str, Any] = found["models"]["model"]["mmmb"][language]["profiles"]["robust"]
    return figures


@pytest.mark.parametrize(("singles", "has_pairs"), [(0, True), (1, True), (4, False)])
def test_the_papers_pair_rule_is_scored_where_the_data_has_pairs(
    tmp_path: Path, singles: int, has_pairs: bool
) -> None:
    figures = pair_scores(tmp_path, singles=singles)
    assert ("pair" in figures) is has_pairs
    if has_pairs:
        # Every yes is right as published, of the no only two.
        assert figures["pair"]["value"] == 0.2 and figures["pair"]["n"] == 10
        assert figures["plain"]["value"] == pytest.approx((4 + 8 + singles) / (20 + singles), abs=1e-4)


@pytest.mark.parametrize("language", YES_NO_QUESTIONS)
def test_pairs_are_found_in_every_language(tmp_path: Path, language: str) -> None:
    assert pair_scores(tmp_path, language)["pair"]["n"] == 10


def test_more_than_two_questions_about_an_image_make_no_pairs(tmp_path: Path) -> None:
    assert "pair" not in pair_scores(tmp_path, of_image=4)


def test_an_image_that_is_no_image_is_named_when_it_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    published.mmmb(tmp_path / "files", "en")
    path = tmp_path / "files/mmmb_en.tsv"
    header, *rows = path.read_text().split("\n")
    place = header.split("\t").index("image")
    cells = rows[2].split("\t")
    cells[place] = base64.b64encode(base64.b64decode(cells[place])[:50]).decode()
    path.write_text("\n".join([header, *rows[:2], "\t".join(cells), *rows[3:]]))
    spec = BenchmarkFilesSpec(output=tmp_path / "table", benchmark="mmmb", files={path.name: path})
    with pytest.raises(BadInput, match="cannot be decoded") as caught:
        execute(STAGE, spec)
    assert caught.value.where.startswith(f"{path}, item {cells[0]!r} (")


@pytest.mark.parametrize("content", [b"", b"GIF89a and no more"])
def test_an_image_file_that_is_no_image_is_named_itself(tmp_path: Path, content: bytes) -> None:
    spec = made_of(tmp_path, "unimm", "unimm_en.json", json.dumps([OPEN, OPEN | {"image": "1.jpg"}]))
    (tmp_path / "images/1.jpg").write_bytes(content)
    with pytest.raises(BadInput, match="cannot be decoded") as caught:
        execute(STAGE, spec)
    assert caught.value.where == f"{tmp_path / 'images/1.jpg'} (of unimm_en.json)"


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
