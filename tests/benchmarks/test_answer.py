"""Guarantees of the answer stage, with a tiny model of random weights: everything is asked, once, the same way."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from models.chat import SPECIAL_TOKENS
from models.language_model import SmallConfig, make_language_model
from models.vision import VisionConfig
from models.vision_language import VisionLanguageModel, make_visual_module
from pipelines.answer.spec import STAGE, AnswerParameters, AnswerSpec
from pipelines.benchmarks import answers, suite
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.lake.identity import file_sha256
from pipelines.lake.manifest import Manifest, TableFile
from pipelines.stage import execute

LANGUAGES = ["en", "zh"]


def published(table: Path) -> Path:
    files = [
        TableFile(
            path=path.relative_to(table).as_posix(), sha256=file_sha256(path), bytes=path.stat().st_size
        )
        for path in sorted((table / "made").rglob("*"))
        if path.is_file()
    ]
    made = Manifest(
        stage="pretrained", code_version="1", fingerprint="made", parameters={}, inputs={}, files=files,
        created="", seconds=0.0,
    )  # fmt: skip
    manifest.write(table, made)
    return table


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["Which colour?"], trainer)
    shape = SmallConfig(width=32, layers=1, heads=2, mlp_width=48)
    language_model = make_language_model(shape, vocabulary=tokenizer.get_vocab_size(), seed=1)
    seeing = VisionConfig(image_size=16, patch_size=8, queries=2, width=16, layers=1, heads=2)
    table = tmp_path_factory.mktemp("lake") / "model"
    (table / "made").mkdir(parents=True)
    visual = make_visual_module(seeing, shape.width, seed=2)
    VisionLanguageModel(visual, language_model, tokenizer).save(table / "made")
    return published(table)


def ask(model: Path, benchmarks: Path, output: Path, batch_size: int = 64) -> dict[suite.Key, answers.Answer]:
    parameters = AnswerParameters(languages=LANGUAGES, max_new_tokens=3, batch_size=batch_size)
    execute(STAGE, AnswerSpec(output=output, model=model, benchmarks=benchmarks, parameters=parameters))
    return answers.read(output)


def test_every_question_is_asked_once_in_every_language_and_rotation(
    model: Path, benchmarks: Path, tmp_path: Path
) -> None:
    said = ask(model, benchmarks, tmp_path)
    expected = suite.load(benchmarks, LANGUAGES)
    assert list(said) == [one.key for one in expected]
    for one in expected:
        assert said[one.key]["gold"] == one.gold and said[one.key]["image_sha256"] == one.image_sha256
    made = manifest.read(tmp_path)
    assert made.metrics["questions"] == made.rows == 2 * (4 * 32 + 40)
    assert made.metrics["images"] == len({one.image_sha256 for one in expected}) < 72


def test_answers_do_not_depend_on_the_batch_they_were_given_in(
    model: Path, benchmarks: Path, tmp_path: Path
) -> None:
    assert ask(model, benchmarks, tmp_path / "many", 64) == ask(model, benchmarks, tmp_path / "few", 5)


def test_a_table_without_a_model_is_refused_with_its_place(benchmarks: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be loaded") as caught:
        ask(benchmarks, benchmarks, tmp_path)
    assert str(benchmarks) in caught.value.where


def test_a_language_that_the_benchmark_lacks_is_refused(
    model: Path, benchmarks: Path, tmp_path: Path
) -> None:
    spec = AnswerSpec(
        output=tmp_path,
        model=model,
        benchmarks=benchmarks,
        parameters=AnswerParameters(languages=["en", "ru"]),
    )
    with pytest.raises(BadInput, match="mmmb_ru"):
        execute(STAGE, spec)
