"""Published files as they are fetched and read: what is damaged, missing or cannot be meant is named, nothing is dropped silently."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines.benchmark_files.spec import STAGE, BenchmarkFilesSpec, Published
from pipelines.benchmarks import suite
from pipelines.errors import BadInput
from pipelines.fingerprint import reusable
from pipelines.lake import identity
from pipelines.lake.identity import file_sha256
from pipelines.stage import execute
from tests.benchmarks import published


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
