"""The translator: what is trained here and what comes from elsewhere translate by the same code."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from transformers import M2M100ForConditionalGeneration, M2M100Tokenizer

from models.translator import Output, Translator, convert
from models.weights import WeightsError
from pipelines.errors import BadInput
from pipelines.foundations.translator import vocabulary
from pipelines.foundations.translator.make import score
from pipelines.foundations.translator.spec import STAGE, TranslatorTraining
from pipelines.foundations.translator.training import Example, batches
from pipelines.lake import manifest
from pipelines.stage import execute
from pipelines.world.text import parallel_sentences
from tests import small_translator
from tests.small_translator import LANGUAGES, SHORT_SENTENCES, short_sentence_translator

SHORT = parallel_sentences(SHORT_SENTENCES, seed=1, languages=LANGUAGES)


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator(manifest.folder(short_sentence_translator()), threads=1)


def test_sentences_learnt_by_heart_come_back_in_the_order_asked(translator: Translator) -> None:
    rows = random.Random(3).sample(SHORT, len(SHORT)) + SHORT[:5]
    outputs = translator.translate([row["en"] for row in rows], "en", "zh")
    assert outputs == [Output(row["zh"], finished=True) for row in rows]


def test_greedy_output_is_that_of_transformers_generate(translator: Translator) -> None:
    folder = manifest.folder(short_sentence_translator()) / "hf"
    network = M2M100ForConditionalGeneration.from_pretrained(folder)
    tokenizer = M2M100Tokenizer.from_pretrained(folder, src_lang="en")
    for row in SHORT[::7]:
        with torch.no_grad():
            ids = network.generate(
                **tokenizer(row["en"], return_tensors="pt"),
                forced_bos_token_id=tokenizer.get_lang_id("zh"), max_new_tokens=40, num_beams=1,
            )  # fmt: skip
        expected = tokenizer.decode(ids[0], skip_special_tokens=True).removeprefix("__zh__").strip()
        assert translator.translate([row["en"]], "en", "zh")[0].text == expected


def test_a_text_longer_than_the_model_reads_is_unfinished_and_stops_nothing(translator: Translator) -> None:
    outputs = translator.translate(["on the left " * 300, "", "red"], "en", "zh")
    assert outputs[0] == Output("", finished=False)
    assert outputs[2] == Output("红色", finished=True)


def test_a_model_folder_from_elsewhere_is_converted_and_scored_by_the_same_stage(tmp_path: Path) -> None:
    made = small_translator.spec(small_translator.world(tmp_path / "world"), tmp_path / "out", steps=1)
    weights = str(manifest.folder(short_sentence_translator()) / "hf")
    taken = made.model_copy(update={"parameters": made.parameters.model_copy(update={"weights": weights})})
    execute(STAGE, taken)
    folder = manifest.folder(tmp_path / "out")
    assert not (folder / "hf").exists()
    assert Translator(folder, threads=1).translate(["red"], "en", "zh")[0].text == "红色"


def test_training_again_gives_the_same_bytes_and_reports_a_signed_score(tmp_path: Path) -> None:
    world = small_translator.world(tmp_path / "world", 100)
    for name in ("one", "two"):
        execute(STAGE, small_translator.spec(world, tmp_path / name, steps=3, quantization="int8"))
    one, two = (manifest.read(tmp_path / name) for name in ("one", "two"))
    assert one.data_version == two.data_version
    assert "tok:zh" in one.metrics["zh"]["bleu_signature"]
    assert set(one.metrics["zh"]) >= {"bleu", "chrf", "chrf_signature", "samples"}


def test_the_score_of_a_fixed_corpus(translator: Translator) -> None:
    rows = [row for row in SHORT if row["kind"] == "question"]
    assert score(translator, rows, "en", "zh")["bleu"] == 100.0
    half = [{**row, "zh": row["zh"] if index % 2 else "完全不同的句子。"} for index, row in enumerate(rows)]
    scored = score(translator, half, "en", "zh")
    assert scored["equal_to_reference"] == 0.5
    assert 10 < scored["bleu"] < 90


def test_the_vocabulary_depends_on_the_set_of_texts_alone_and_keeps_full_width_signs() -> None:
    texts = [row[language] for row in SHORT for language in LANGUAGES]
    first = vocabulary.train(texts, 200)
    second = vocabulary.train(texts[::-1] + texts, 200)
    assert first._model == second._model
    question = "圆形是什么颜色？"
    assert first._sentencepiece.decode(first._sentencepiece.encode(question)) == question


def test_a_vocabulary_that_cannot_be_is_refused() -> None:
    with pytest.raises(BadInput, match="vocabulary"):
        vocabulary.train(["a b c"], 5000)


def test_batches_are_a_function_of_the_seed_and_have_one_size() -> None:
    pairs = [Example([1] * length, [2]) for length in range(1, 60)]
    drawn = [list(batches(pairs, TranslatorTraining(steps=40, batch=8, seed=seed))) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert [len(batch) for batch in drawn[0]] == [8] * 40


def test_damaged_and_foreign_models_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="lacks"):
        Translator(tmp_path, threads=1)
    source = manifest.folder(short_sentence_translator()) / "hf"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for path in source.iterdir():
        (foreign / path.name).write_bytes(path.read_bytes())
    config = json.loads((foreign / "config.json").read_text())
    (foreign / "config.json").write_text(json.dumps({**config, "d_model": 32}))
    with pytest.raises(WeightsError, match="cannot convert"):
        convert(foreign, tmp_path / "out")
    (foreign / "model.safetensors").rename(foreign / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="pickle"):
        convert(foreign, tmp_path / "out")


def test_an_unknown_language_is_refused_by_name(translator: Translator) -> None:
    with pytest.raises(WeightsError, match="'xx'"):
        translator.translate(["red"], "en", "xx")
