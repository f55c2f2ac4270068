"""The translation stage: every caption is translated or accounted for, in any order and after any stop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import pyarrow.parquet as pq
import pytest

from models.translator import Output, Translator
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.remote.spec import Conduct
from pipelines.stage import execute
from pipelines.translate import captions, translators
from pipelines.translate.spec import STAGE, Decoding, TranslateParameters, TranslateSpec
from pipelines.translate.translators import Routed, open_translator, pick
from pipelines.world.grammar import grammar
from pipelines.world.text import few_sentences
from tests import tables
from tests.small_translator import short_sentence_translator

SENTENCES = [
    row for row in few_sentences([grammar("en"), grammar("zh")]) if row["kind"] in ("question", "describe")
]
NONSENSE = (
    "free shipping on all orders over 50 dollars, no questions asked, since 1999 and all over the world " * 6
)
ROWS = [
    {**row, "caption": SENTENCES[number % 25]["en"] if number % 10 else NONSENSE}
    for number, row in enumerate(tables.world_rows(60))
]
CHINESE_ROW = {**tables.world_rows(1, seed=9, language="zh")[0]}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    tables.raw_pairs(folder / "raw", [*ROWS, CHINESE_ROW])
    tables.raw_pairs(folder / "raw-other-order", [CHINESE_ROW, *ROWS[::-1]], shards=2)
    tables.filtered_pairs(folder / "filtered", [row["uid"] for row in [*ROWS[:50], CHINESE_ROW]])
    return folder


def spec(lake: Path, output: Path, **changes: Any) -> TranslateSpec:
    settings: dict[str, Any] = {
        "raw_pairs": lake / "raw", "filtered_pairs": lake / "filtered", "translator": short_sentence_translator(),
        "parameters": TranslateParameters(captions_per_chunk=20), "threads": 1, "output": output,
    }  # fmt: skip
    return TranslateSpec(**{**settings, **changes})


def bytes_of(table: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in manifest.files(table)}


@pytest.fixture(scope="module")
def undisturbed(lake: Path) -> Path:
    execute(STAGE, spec(lake, lake / "undisturbed"))
    return lake / "undisturbed"


def test_known_sentences_are_translated_and_the_rest_is_dropped_with_a_reason(undisturbed: Path) -> None:
    texts = {
        row["uid"]: row["text"] for row in pq.read_table(manifest.file(undisturbed, "zh.parquet")).to_pylist()
    }
    dropped = pq.read_table(manifest.file(undisturbed, "dropped.parquet")).to_pylist()
    reference = {row["en"]: row["zh"] for row in SENTENCES}
    known = {row["uid"]: reference[row["caption"]] for row in ROWS[:50] if row["caption"] != NONSENSE}
    assert texts.items() >= known.items()
    unknown = {row["uid"] for row in ROWS[:50]} - set(known)
    assert {row["uid"] for row in dropped} == unknown
    assert all(row["source"] == NONSENSE and row["reason"] and row["language"] == "zh" for row in dropped)


def test_the_ledger_counts_a_unit_per_pair_and_language_it_is_not_in(undisturbed: Path) -> None:
    made = manifest.read(undisturbed)
    assert made.ledger is not None
    assert (made.ledger.rows_in, made.ledger.kept) == (50, 45)
    assert sum(made.metrics["rejects"].values()) == 5
    assert (
        CHINESE_ROW["uid"] not in pq.read_table(manifest.file(undisturbed, "zh.parquet"))["uid"].to_pylist()
    )


def test_each_distinct_caption_is_translated_once(undisturbed: Path) -> None:
    made = manifest.read(undisturbed)
    assert made.metrics["distinct_sentences"] == len({row["caption"] for row in ROWS[:50]})
    assert made.metrics["distinct_share"] == pytest.approx(made.metrics["distinct_sentences"] / 50)


def test_raw_shards_in_another_order_give_the_same_bytes(
    lake: Path, tmp_path: Path, undisturbed: Path
) -> None:
    execute(STAGE, spec(lake, tmp_path / "out", raw_pairs=lake / "raw-other-order"))
    assert bytes_of(tmp_path / "out") == bytes_of(undisturbed)


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_a_stopped_run_goes_on_with_the_chunk_it_was_at(
    lake: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    translate_chunk = captions._translate_chunk
    asked: list[int] = []

    def stopping(*arguments: Any) -> None:
        asked.append(arguments[4])
        if len(asked) == chunk + 1:
            raise KeyboardInterrupt
        translate_chunk(*arguments)

    monkeypatch.setattr(captions, "_translate_chunk", stopping)
    with pytest.raises(KeyboardInterrupt):
        execute(STAGE, spec(lake, tmp_path / "out"))
    assert not manifest.exists(tmp_path / "out")
    execute(STAGE, spec(lake, tmp_path / "out"))
    assert asked == [*range(chunk + 1), *range(chunk, 3)]
    assert bytes_of(tmp_path / "out") == bytes_of(undisturbed)


def test_a_language_without_a_token_is_refused_by_name(lake: Path, tmp_path: Path) -> None:
    parameters = TranslateParameters(target_languages=["xx"])
    with pytest.raises(BadInput, match="'xx'"):
        execute(STAGE, spec(lake, tmp_path / "out", parameters=parameters))


def test_the_model_is_given_no_text_twice_across_crawls(
    lake: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    translate = Translator.translate

    def recording(self: Translator, texts: Sequence[str], source: str, target: str) -> list[Output]:
        asked.extend(texts)
        return translate(self, texts, source, target)

    monkeypatch.setattr(Translator, "translate", recording)
    tables.filtered_pairs(tmp_path / "few", [row["uid"] for row in ROWS[:12]])
    execute(STAGE, spec(lake, tmp_path / "one", filtered_pairs=tmp_path / "few", cache=tmp_path / "cache"))
    first = len(asked)
    execute(STAGE, spec(lake, tmp_path / "two", cache=tmp_path / "cache"))
    assert first == len({row["caption"] for row in ROWS[:12]})
    assert len(asked) == len(set(asked)) == len({row["caption"] for row in ROWS[:50]})
    assert bytes_of(tmp_path / "two") == bytes_of(undisturbed)


def test_another_search_is_another_translation(lake: Path, tmp_path: Path) -> None:
    one = open_cached(tmp_path, Decoding())
    two = open_cached(tmp_path, Decoding(beam_size=2))
    three = open_cached(tmp_path, Decoding(max_batch_tokens=64))
    for translator in (one, two, three):
        translator.translate(["red"], "en", "zh")
    assert (one.kept, two.kept, three.kept) == (0, 0, 1)


def open_cached(folder: Path, decoding: Decoding) -> Routed:
    table = short_sentence_translator()
    return open_translator(
        manifest.folder(table), decoding, folder, version=manifest.read(table).data_version, device="cpu",
        threads=1, conduct=Conduct(), account="test",
    )  # fmt: skip


def test_a_gpu_is_used_where_there_is_one_and_a_gpu_that_cannot_be_used_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(translators, "_DEVICES", tmp_path)
    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: 0)
    assert (pick("auto"), pick("cpu"), pick("cuda")) == ("cpu", "cpu", "cuda")
    (tmp_path / "nvidia0").touch()
    assert pick("cpu") == "cpu"
    with pytest.raises(BadInput, match="CTranslate2 cannot use it"):
        pick("auto")
    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: 1)
    assert pick("auto") == "cuda"


def test_a_model_that_fails_while_it_translates_is_told_with_what_may_help(tmp_path: Path) -> None:
    class Failing:
        def translate(self, texts: Sequence[str], source: str, target: str) -> list[Output]:
            raise RuntimeError("Library libcublas.so.12 is not found or cannot be loaded")

    with pytest.raises(BadInput, match=r"libcublas\.so\.12") as caught:
        Routed({}, Failing()).translate(["red"], "en", "zh")
    assert "device: cpu" in str(caught.value.remedy)
