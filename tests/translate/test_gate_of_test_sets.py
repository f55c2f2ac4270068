"""The gate holds weights from elsewhere, which no world measures, to parallel files: a published test set or one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.conversations.spec import STAGE as CONVERSATIONS
from pipelines.conversations.spec import ConversationParameters, ConversationSpec
from pipelines.errors import BadInput
from pipelines.foundations.translator.spec import STAGE as TRANSLATOR
from pipelines.foundations.translator.spec import TranslatorParameters, TranslatorSpec
from pipelines.lake import manifest
from pipelines.stage import execute
from pipelines.translate.spec import STAGE, TranslateParameters, TranslateSpec
from pipelines.translation_benchmark.spec import STAGE as BENCHMARK
from pipelines.translation_benchmark.spec import TestSet, TranslationBenchmarkSpec
from pipelines.world.grammar import grammar
from pipelines.world.text import few_sentences
from tests import tables
from tests.conversation_corpus import entry
from tests.small_translator import short_sentence_translator

ROWS = [row for row in few_sentences([grammar("en"), grammar("zh")]) if row["kind"] == "question"][:12]
GATED = TranslateParameters(least_bleu={"en-zh": 50.0})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Published weights in a table of their own; a crawl whose captions the translator knows; parallel files, good and bad."""
    made = tmp_path_factory.mktemp("gate")
    weights = str(manifest.folder(short_sentence_translator()) / "hf")
    parameters = TranslatorParameters(weights=weights, quantization="float32")
    execute(TRANSLATOR, TranslatorSpec(output=made / "translator", parameters=parameters))
    rows = [
        {**row, "caption": one["en"]} for row, one in zip(tables.world_rows(len(ROWS)), ROWS, strict=True)
    ]
    tables.raw_pairs(made / "raw", rows)
    tables.filtered_pairs(made / "filtered", [row["uid"] for row in rows])
    (made / "mine.en").write_text("\n".join(row["en"] for row in ROWS) + "\n")
    (made / "mine.zh").write_text("\n".join(row["zh"] for row in ROWS) + "\n")
    (made / "other.zh").write_text("\n".join(["完全不同的一句话。"] * len(ROWS)) + "\n")
    return made


def scored(folder: Path, reference: str, translator: str = "translator") -> Path:
    test_set = TestSet(
        name=reference, source=str(folder / "mine.en"), reference=str(folder / f"{reference}.zh")
    )
    table = folder / f"scores-{reference}-{translator}"
    execute(
        BENCHMARK, TranslationBenchmarkSpec(output=table, test_set=test_set, translator=folder / translator, threads=1)
    )  # fmt: skip
    return table


def spec(folder: Path, output: Path, scores: list[Path]) -> TranslateSpec:
    return TranslateSpec(
        output=output, raw_pairs=folder / "raw", filtered_pairs=folder / "filtered", translator=folder / "translator",
        test_scores=scores, parameters=GATED, threads=1,
    )  # fmt: skip


def test_weights_that_nothing_measured_do_not_pass_a_gate(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="never scored on it") as caught:
        execute(STAGE, spec(folder, tmp_path / "out", []))
    assert "test set" in str(caught.value.remedy)


def test_weights_that_score_well_on_ones_own_files_translate(folder: Path, tmp_path: Path) -> None:
    made = execute(STAGE, spec(folder, tmp_path / "out", [scored(folder, "mine")]))
    assert made.ledger is not None and made.ledger.kept == len(ROWS)


def test_weights_that_score_badly_on_one_of_the_files_translate_nothing(folder: Path, tmp_path: Path) -> None:
    scores = [scored(folder, "mine"), scored(folder, "other")]
    with pytest.raises(BadInput, match=r"BLEU on the test set other is .* for en-zh; at least 50 is asked"):
        execute(STAGE, spec(folder, tmp_path / "out", scores))
    assert not manifest.exists(tmp_path / "out")

    (tmp_path / "talks.json").write_text(json.dumps([entry("1", None, ROWS[0]["en"], ROWS[1]["en"])]))
    talks = ConversationSpec(
        output=tmp_path / "talks", conversations=tmp_path / "talks.json", translator=folder / "translator",
        test_scores=scores, parameters=ConversationParameters(least_bleu={"en-zh": 50.0}),
    )  # fmt: skip
    with pytest.raises(BadInput, match="the test set other"):
        execute(CONVERSATIONS, talks)


def test_scores_of_another_translator_say_nothing(folder: Path, tmp_path: Path) -> None:
    parameters = TranslatorParameters(
        weights=str(manifest.folder(short_sentence_translator()) / "hf"), quantization="int8"
    )
    execute(TRANSLATOR, TranslatorSpec(output=folder / "int8", parameters=parameters))
    with pytest.raises(BadInput, match="of another translator"):
        execute(STAGE, spec(folder, tmp_path / "out", [scored(folder, "mine", "int8")]))


def test_a_score_that_lets_through_is_no_part_of_the_result(folder: Path, tmp_path: Path) -> None:
    from pipelines.fingerprint import fingerprint

    one, two = (spec(folder, tmp_path, scores) for scores in ([], [tmp_path / "scores"]))
    assert fingerprint(STAGE, one, {}) == fingerprint(STAGE, two, {})
