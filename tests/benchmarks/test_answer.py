"""Guarantees of the answer stage, with a tiny model of random weights: everything is asked, once, the same way."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from models.chat import SPECIAL_TOKENS
from models.generation import write_generation
from models.language_model import SmallConfig, make_language_model
from models.vision import VisionConfig, VisionEncoder
from models.vision_language import VisionLanguageModel, make_visual_module
from pipelines.answer.spec import STAGE, AnswerParameters, AnswerSpec
from pipelines.benchmarks import answers, suite
from pipelines.benchmarks.question import Key
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.lake.identity import file_sha256
from pipelines.lake.manifest import Manifest, TableFile
from pipelines.score_answers.spec import STAGE as SCORES
from pipelines.score_answers.spec import ScoreAnswersSpec
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


def spec_of(
    model: Path, benchmarks: Path, output: Path, batch_size: int = 64, **parameters: Any
) -> AnswerSpec:
    return AnswerSpec(
        output=output, model=model, benchmarks={"world": benchmarks}, batch_size=batch_size,
        parameters=AnswerParameters(languages=LANGUAGES, max_new_tokens=3, **parameters),
    )  # fmt: skip


def ask(
    model: Path, benchmarks: Path, output: Path, batch_size: int = 64, **parameters: Any
) -> dict[Key, answers.Answer]:
    execute(STAGE, spec_of(model, benchmarks, output, batch_size, **parameters))
    return answers.read(output)


def test_every_question_is_asked_once_in_every_language_and_rotation(
    model: Path, benchmarks: Path, tmp_path: Path
) -> None:
    said = ask(model, benchmarks, tmp_path)
    expected = suite.load([benchmarks], LANGUAGES)
    assert list(said) == [one.key for one in expected]
    for one in expected:
        assert said[one.key]["prompt"] == one.prompt_digest and said[one.key]["image"] == one.image_sha256
    made = manifest.read(tmp_path)
    assert made.metrics["questions"] == made.rows == 2 * (4 * 32 + 40)
    assert made.metrics["images"] == len({one.image_sha256 for one in expected}) < 72


def test_each_image_is_encoded_once_and_what_is_lost_is_not_generated(
    model: Path, benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted where the work is done: images at the vision encoder, rows at the generation."""
    encoded: list[int] = []
    generated: list[int] = []
    forward, generate = VisionEncoder.forward, VisionLanguageModel.generate

    def counted_forward(self: VisionEncoder, pixels: Any) -> Any:
        encoded.append(len(pixels))
        return forward(self, pixels)

    def counted_generate(self: VisionLanguageModel, rows: Any, *others: Any, **settings: Any) -> Any:
        generated.append(len(rows))
        return generate(self, rows, *others, **settings)

    monkeypatch.setattr(VisionEncoder, "forward", counted_forward)
    monkeypatch.setattr(VisionLanguageModel, "generate", counted_generate)
    said = ask(model, benchmarks, tmp_path, batch_size=16)
    images = {row["image"] for row in said.values()}
    answered = sum(row["answer"] is not None for row in said.values())
    assert sum(encoded) == len(images) < answered == sum(generated) < len(said)


def test_an_item_that_is_lost_is_not_asked_further_and_says_so(
    model: Path, benchmarks: Path, tmp_path: Path
) -> None:
    whole = ask(model, benchmarks, tmp_path / "whole", stop_at_first_wrong=False)
    said = ask(model, benchmarks, tmp_path / "stopped")
    left_out = {key for key, row in said.items() if row["answer"] is None}
    assert left_out and manifest.read(tmp_path / "stopped").metrics[
        "not_asked_after_a_wrong_rotation"
    ] == len(left_out)
    assert all(key[3] > 0 and said[key]["skipped"] == answers.LOST for key in left_out)
    assert all(row["answer"] == whole[key]["answer"] for key, row in said.items() if key not in left_out)
    assert scores(tmp_path / "stopped", benchmarks) == scores(tmp_path / "whole", benchmarks)


def scores(answered: Path, benchmarks: Path) -> list[Any]:
    """Circular and plain accuracy under every profile."""
    spec = ScoreAnswersSpec(
        output=answered / "scores", answers={"model": answered}, benchmarks={"world": benchmarks}
    )
    execute(SCORES, spec)
    document = json.loads(manifest.file(answered / "scores", "scores.json").read_text())
    return [
        (profile, figure, found[figure])
        for language in LANGUAGES
        for profile, found in document["models"]["model"]["mmmb"][language]["profiles"].items()
        for figure in ("circular", "plain")
    ]


def test_a_model_is_asked_as_its_own_settings_say_unless_the_recipe_says_otherwise(
    model: Path, benchmarks: Path, tmp_path: Path
) -> None:
    def words(asked: Path, name: str, **parameters: Any) -> list[str | None]:
        said = ask(asked, benchmarks, tmp_path / name, stop_at_first_wrong=False, **parameters)
        return [row["answer"] for row in said.values()]

    def with_settings(name: str, **settings: Any) -> Path:
        shutil.copytree(model / "made", tmp_path / name / "made")
        write_generation(tmp_path / name / "made", settings)
        return published(tmp_path / name)

    greedy, beams = words(model, "greedy"), words(model, "beams", beams=3)
    three = with_settings("three", num_beams=3)
    assert words(three, "as the model says") == beams != greedy
    assert words(three, "as the recipe says", beams=1) == greedy
    assert words(with_settings("penalised", repetition_penalty=50.0), "without repetitions") != greedy
    with pytest.raises(BadInput, match="num_beams is 'many'"):
        words(with_settings("wrong", num_beams="many"), "not at all")


def test_a_killed_run_goes_on_after_its_last_whole_answer(
    model: Path, benchmarks: Path, tmp_path: Path
) -> None:
    undisturbed = ask(model, benchmarks, tmp_path / "undisturbed", batch_size=1)
    spec = spec_of(model, benchmarks, tmp_path / "killed", batch_size=1)
    document = tmp_path / "spec.json"
    document.write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "pipelines.answer", str(document)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (journals := [*(tmp_path / "killed/_work").glob("*/answers.jsonl")]) or (
            journals[0].stat().st_size == 0
        ):
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    written = journals[0].read_bytes()
    assert 0 < written.count(b"\n") < len(undisturbed)
    journals[0].write_bytes(written[:-5])  # the last line is torn, as a power cut leaves it
    execute(STAGE, spec)
    assert answers.read(tmp_path / "killed") == undisturbed
    assert manifest.read(tmp_path / "killed").metrics["resumed_from"] == written[:-5].count(b"\n")


@pytest.mark.parametrize(
    ("line", "words"),
    [("{half of it\n", "not JSON"), ("[1]\n", "not an answer"), ('{"a": 1}\n', "not an answer")],
)
def test_a_damaged_line_of_a_killed_run_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / answers.FILE
    answers.Journal(path, "one").close()
    path.write_text(path.read_text() + line)
    with pytest.raises(BadInput, match=words) as caught:
        answers.Journal(path, "one")
    assert caught.value.where == f"{path}, line 2" and "asked again" in caught.value.remedy
    path.write_text(line)
    with pytest.raises(BadInput) if line[:2] != '{"' else contextlib.nullcontext():
        answers.Journal(path, "one").close()


def test_answers_of_another_format_are_refused(model: Path, benchmarks: Path, tmp_path: Path) -> None:
    ask(model, benchmarks, tmp_path)
    file = manifest.file(tmp_path, answers.FILE)
    file.write_text(file.read_text().replace('"format": 2', '"format": 1', 1))
    with pytest.raises(BadInput, match="format 1, not 2"):
        answers.read(tmp_path)


def test_answers_do_not_depend_on_the_batch_they_were_given_in(
    model: Path, benchmarks: Path, tmp_path: Path
) -> None:
    assert ask(model, benchmarks, tmp_path / "many", 64) == ask(model, benchmarks, tmp_path / "few", 5)


def test_a_table_without_a_model_is_refused_with_its_place(benchmarks: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be loaded") as caught:
        ask(benchmarks, benchmarks, tmp_path)
    assert str(benchmarks) in caught.value.where


def test_a_longest_answer_of_a_benchmark_that_is_none_is_refused(
    model: Path, benchmarks: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="there is no benchmark 'lava'") as caught:
        ask(model, benchmarks, tmp_path, max_new_tokens_of={"llava": 512, "lava": 512})
    assert caught.value.where == "parameters.max_new_tokens_of" and "llava" in caught.value.remedy


def test_a_language_that_the_benchmark_lacks_is_refused(
    model: Path, benchmarks: Path, tmp_path: Path
) -> None:
    spec = AnswerSpec(
        output=tmp_path,
        model=model,
        benchmarks={"world": benchmarks},
        parameters=AnswerParameters(languages=["en", "ru"]),
    )
    with pytest.raises(BadInput, match="no benchmark has questions in ru"):
        execute(STAGE, spec)
