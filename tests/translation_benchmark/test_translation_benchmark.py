"""A published test set is read as it was published, pinned, scored with a signature, and served by path or address."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydantic import ValidationError
from sacrebleu import corpus_bleu

from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.stage import execute
from pipelines.translation_benchmark.files import load, segments
from pipelines.translation_benchmark.spec import STAGE, TestSet, TranslationBenchmarkSpec
from pipelines.world.grammar import grammar
from pipelines.world.text import few_sentences
from tests.small_translator import short_sentence_translator

ROWS = [row for row in few_sentences([grammar("en"), grammar("zh")]) if row["kind"] == "question"][:12]
SOURCES = [row["en"] for row in ROWS]
REFERENCES = [row["zh"] for row in ROWS[:11]] + ["完全不同的一句话。"]


def sgm(texts: list[str], kind: str, language: str) -> str:
    """The layout of WMT's files: two documents, paragraphs, ampersands as they come."""
    half = len(texts) // 2
    documents = []
    for name, part in (("news.1", texts[:half]), ("news.2", texts[half:])):
        lines = [f'<seg id="{number}">{text}</seg>' for number, text in enumerate(part, start=1)]
        body = "\n".join(["<p>", *lines, "</p>"])
        documents.append(f'<doc sysid="ref" docid="{name}" genre="news" origlang="en">\n{body}\n</doc>')
    head = f'<{kind}set setid="newstest2017" srclang="any" trglang="{language}">'
    return "\n".join([head, *documents, f"</{kind}set>\n"])


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wmt17")
    (folder / "src.en.sgm").write_text(sgm(SOURCES, "src", "en"), encoding="utf-8")
    (folder / "ref.zh.sgm").write_text(sgm(REFERENCES, "ref", "zh"), encoding="utf-8")
    (folder / "src.en.txt").write_text("\n".join(SOURCES) + "\n", encoding="utf-8")
    (folder / "ref.zh.txt").write_text("\n".join(REFERENCES) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def address(published: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(published))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def wmt17(folder: Path, ending: str = "sgm", **changes: Any) -> TestSet:
    settings = {"source": str(folder / f"src.en.{ending}"), "reference": str(folder / f"ref.zh.{ending}")}
    return TestSet(name="wmt17", **{**settings, **changes})


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def scored(folder: Path, output: Path, **changes: Any) -> manifest.Manifest:
    spec = TranslationBenchmarkSpec(
        output=output, test_set=wmt17(folder, **changes), translator=short_sentence_translator(), threads=1
    )
    return execute(STAGE, spec)


def test_the_score_is_sacrebleu_s_with_the_chinese_tokenizer_and_its_signature(
    published: Path, tmp_path: Path
) -> None:
    metrics = scored(published, tmp_path / "out").metrics
    outputs = [
        json.loads(line)["output"]
        for line in manifest.file(tmp_path / "out", "segments.jsonl").read_text().splitlines()
    ]
    assert outputs == [row["zh"] for row in ROWS]
    assert metrics["bleu"] == round(corpus_bleu(outputs, [REFERENCES], tokenize="zh").score, 2)
    assert 50 < metrics["bleu"] < 100
    assert "tok:zh" in metrics["bleu_signature"]
    assert (metrics["pair"], metrics["segments"]) == ("en-zh", 12)


def test_text_files_and_sgm_files_of_one_test_set_score_the_same(published: Path, tmp_path: Path) -> None:
    one = scored(published, tmp_path / "sgm").metrics
    other = scored(published, tmp_path / "txt", ending="txt").metrics
    assert one == other


def test_files_are_fetched_by_address_and_held_to_their_digests(
    published: Path, address: str, tmp_path: Path
) -> None:
    pins = {
        "source_sha256": sha256(published / "src.en.sgm"),
        "reference_sha256": sha256(published / "ref.zh.sgm"),
    }
    places = {"source": f"{address}/src.en.sgm", "reference": f"{address}/ref.zh.sgm"}
    metrics = scored(published, tmp_path / "out", **places, **pins).metrics
    assert metrics["bleu"] == scored(published, tmp_path / "local").metrics["bleu"]
    with pytest.raises(BadInput, match="is pinned"):
        scored(published, tmp_path / "wrong", **{**places, **pins, "reference_sha256": "0" * 64})
    with pytest.raises(BadInput, match="cannot be fetched"):
        scored(published, tmp_path / "gone", **{**places, **pins, "source": f"{address}/gone.sgm"})


def test_an_address_must_be_pinned(published: Path) -> None:
    with pytest.raises(ValidationError, match="pin what it gives"):
        wmt17(published, source="https://example.org/src.sgm")
    with pytest.raises(ValidationError, match="neither"):
        wmt17(published, source="file:///etc/passwd")


def test_other_content_under_an_unchanged_path_is_scored_anew(published: Path, tmp_path: Path) -> None:
    for name in ("src.en.txt", "ref.zh.txt"):
        (tmp_path / name).write_bytes((published / name).read_bytes())
    first = scored(tmp_path, tmp_path / "out", ending="txt")
    (tmp_path / "ref.zh.txt").write_text("\n".join(row["zh"] for row in ROWS))
    second = scored(tmp_path, tmp_path / "out", ending="txt")
    assert first.metrics["bleu"] < second.metrics["bleu"] == 100.0


def test_entities_and_ampersands_are_read_as_sacrebleu_reads_them(tmp_path: Path) -> None:
    (tmp_path / "src.en.sgm").write_text(sgm(["Cats & dogs", "R&amp;D  \t now"], "src", "en"))
    (tmp_path / "ref.zh.sgm").write_text(sgm(["猫 &  狗", "R&amp;D"], "ref", "zh"))
    sources, references = load(wmt17(tmp_path), tmp_path)
    assert sources == ["Cats & dogs", "R&D now"]
    assert references == ["猫 & 狗", "R&amp;D"]


def test_a_line_separator_within_a_sentence_ends_no_segment(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one\u2028still one\ntwo\n")
    assert segments(tmp_path / "lines.txt").texts == ["one still one", "two"]


def test_files_that_do_not_belong_together_are_refused(published: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("eins\n")
    with pytest.raises(BadInput, match="12 segments, the reference 1"):
        load(wmt17(published, reference=str(tmp_path / "short.txt")), tmp_path)
    (tmp_path / "other.sgm").write_text(sgm(REFERENCES, "ref", "zh").replace("news.2", "news.3"))
    with pytest.raises(BadInput, match=r"'news.2:1' in the source and 'news.3:1'"):
        load(wmt17(published, reference=str(tmp_path / "other.sgm")), tmp_path)
    (tmp_path / "empty.sgm").write_text("<refset></refset>")
    with pytest.raises(BadInput, match="no segments"):
        load(wmt17(published, reference=str(tmp_path / "empty.sgm")), tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(BadInput, match="not UTF-8"):
        load(wmt17(published, reference=str(tmp_path / "latin.txt")), tmp_path)
    with pytest.raises(BadInput, match="does not exist"):
        load(wmt17(published, reference=str(tmp_path / "none.txt")), tmp_path)
