"""Models beside ours: any that transformers loads, and any behind a server, on the same questions and rules."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from pipelines.answer import transformers_model
from pipelines.answer.run import MOST_RUNS
from pipelines.answer.spec import STAGE, AnswerParameters, AnswerSpec
from pipelines.answer.transformers_model import TransformersModel
from pipelines.benchmarks import answers, suite
from pipelines.benchmarks.pictures import as_sent
from pipelines.benchmarks.question import Key
from pipelines.errors import BadInput, Interrupted
from pipelines.lake import manifest
from pipelines.remote.spec import Conduct, Server
from pipelines.score_answers.spec import STAGE as SCORES
from pipelines.score_answers.spec import ScoreAnswersSpec, ScoreParameters
from pipelines.stage import execute
from tests.benchmarks import published
from tests.benchmarks.conftest import publish
from tests.chat_server import Answer, Call, serving

TEMPLATE = "{% for m in messages %}{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endfor %}\n>"


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of the true architecture with random weights, as transformers saves it."""
    folder = tmp_path_factory.mktemp("llava")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<end>", "<image>"]
    tokenizer = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate([*special, *alphabet])}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    pictures = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = LlavaProcessor(
        image_processor=pictures, tokenizer=fast, patch_size=8, vision_feature_select_strategy="default",
        chat_template=TEMPLATE, num_additional_image_tokens=1,
    )  # fmt: skip
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**shape, image_size=16, patch_size=8),
        text_config=LlamaConfig(
            **shape, vocab_size=len(special) + len(alphabet), pad_token_id=0, eos_token_id=1
        ),
        image_token_index=2,
    )
    import torch

    torch.manual_seed(1)
    LlavaForConditionalGeneration(config).eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def ask(spec: AnswerSpec) -> dict[Key, answers.Answer]:
    execute(STAGE, spec)
    return answers.read(spec.output)


def of_llava(llava: Path, benchmarks: Path, output: Path, batch_size: int) -> AnswerSpec:
    return AnswerSpec(
        output=output, transformers_model=llava, benchmarks={"world": benchmarks}, batch_size=batch_size,
        parameters=AnswerParameters(languages=["en", "zh"], max_new_tokens=3),
    )  # fmt: skip


def test_a_model_of_transformers_answers_every_question_and_the_batch_size_changes_nothing(
    llava: Path, benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[TransformersModel] = []
    encoded: list[int] = []
    remember = TransformersModel.__init__

    def remembered(self: TransformersModel, *arguments: Any, **settings: Any) -> None:
        remember(self, *arguments, **settings)
        self.model.model.vision_tower.register_forward_hook(
            lambda _, __, output: encoded.append(len(output.last_hidden_state))
        )
        made.append(self)

    monkeypatch.setattr(TransformersModel, "__init__", remembered)
    together = ask(of_llava(llava, benchmarks, tmp_path / "together", 48))
    assert list(together) == [one.key for one in suite.load([benchmarks], ["en", "zh"])]
    assert len({row["answer"] for row in together.values()}) > 3
    images = len({row["image"] for row in together.values()})
    asked = sum(row["answer"] is not None for row in together.values())
    assert sum(encoded) == made[0].seen.computed == images < asked
    monkeypatch.setattr(transformers_model, "KEPT_BYTES", 0)
    few = ask(of_llava(llava, benchmarks, tmp_path / "few", 7))
    assert few == together


def test_a_folder_without_a_model_is_refused(benchmarks: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="cannot be loaded") as caught:
        execute(STAGE, of_llava(tmp_path / "empty", benchmarks, tmp_path / "table", 8))
    assert str(tmp_path / "empty") in caught.value.where


def without_some_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "q_proj" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def of_another_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "q_proj.weight" in name)
    save_file(
        weights | {name: weights[name][:5].contiguous()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


def with_a_broken_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% if %}")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (without_some_weights, r"of the model's weights are in no file, the first '.*q_proj.*random"),
        (cut_short, "cannot be loaded: .*not fully covered"),
        (of_another_shape, "cannot be loaded"),
        (with_a_broken_template, "chat template cannot be used"),
    ],
)
def test_a_model_that_is_not_whole_is_refused_and_never_scored_with_random_weights(
    llava: Path, benchmarks: Path, tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(llava, tmp_path / "llava")
    harm(tmp_path / "llava")
    with pytest.raises(BadInput, match=message) as caught:
        execute(STAGE, of_llava(tmp_path / "llava", benchmarks, tmp_path / "table", 8))
    assert str(tmp_path / "llava") in caught.value.where


def of_server(url: str, benchmarks: Path, folder: Path) -> AnswerSpec:
    return AnswerSpec(
        output=folder / "table", server=Server(base_url=url, model="some-vlm"), benchmarks={"world": benchmarks},
        parameters=AnswerParameters(languages=["en"], max_new_tokens=8),
        conduct=Conduct(backoff_seconds=0.01, attempts=2), cache=folder / "cache.sqlite",
    )  # fmt: skip


def test_a_model_behind_a_server_is_sent_image_and_question(benchmarks: Path, tmp_path: Path) -> None:
    calls: list[Call] = []

    def behave(call: Call) -> Answer:
        calls.append(call)
        return Answer(text="A")

    with serving(behave) as (_, url):
        said = ask(of_server(url, benchmarks, tmp_path))
    assert {row["answer"] for row in said.values() if row["answer"]} == {"A"}
    image, words = calls[0].body["messages"][-1]["content"]
    assert image["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert words["text"] in {one.prompt for one in suite.load([benchmarks], ["en"])}
    assert calls[0].body["max_tokens"] == 8 and calls[0].body["temperature"] == 0.0


def failing(spec: AnswerSpec, **conduct: Any) -> AnswerSpec:
    """Each attempt counts, and many may fail in a row."""
    settled = {"backoff_seconds": 0.01, "attempts": 1, "most_failures_in_a_row": 1000, **conduct}
    return spec.model_copy(update={"conduct": Conduct(**settled)})


def test_questions_that_a_server_fails_to_answer_are_asked_again_and_no_others(
    benchmarks: Path, tmp_path: Path
) -> None:
    broken = True

    def behave(call: Call) -> Answer:
        return Answer(status=500) if broken and call.number % 10 == 3 else Answer(text="B")

    with serving(behave) as (server, url):
        spec = failing(of_server(url, benchmarks, tmp_path))
        with pytest.raises(Interrupted, match=r"no answer to \d+ of 168 questions.*http_500"):
            execute(STAGE, spec)
        before, broken = len(server.calls), False
        answered = before - sum(number % 10 == 3 for number in range(before))
        # Not the kept requests alone: the journal has them, wherever the next run is.
        said = ask(spec.model_copy(update={"cache": tmp_path / "other.sqlite"}))
    assert sum(row["answer"] is not None for row in said.values()) - answered == len(server.calls) - before


def test_a_question_that_never_gets_an_answer_does_not_hold_up_the_model_for_good(
    benchmarks: Path, tmp_path: Path
) -> None:
    cursed = suite.load([benchmarks], ["en"])[0]

    def behave(call: Call) -> Answer:
        words = call.body["messages"][-1]["content"][1]["text"]
        return Answer(status=500) if words == cursed.prompt else Answer(text="B")

    with serving(behave) as (_, url):
        spec = failing(of_server(url, benchmarks, tmp_path))
        for _ in range(MOST_RUNS - 1):
            with pytest.raises(Interrupted, match="put down as refused"):
                execute(STAGE, spec)
        said = ask(spec)
    assert said[cursed.key]["answer"] is None and said[cursed.key]["skipped"] == "refused: http_500"
    # The other rotations were asked all the same: under some rules they count without it.
    assert all(row["answer"] == "B" for key, row in said.items() if key[2] == cursed.item and key[3] == 1)
    assert manifest.read(spec.output).metrics["refused"] == {"http_500": 1}


REFUSALS = {
    "http_400": Answer("content management policy", status=400),
    "content_filter": Answer("I can", finish_reason="content_filter"),
    "no_text": Answer(body=b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}'),
}
DECLINED = Answer(
    body=b'{"choices": [{"message": {"content": null, "refusal": "I cannot help with that."}}]}'
)


@pytest.mark.parametrize(
    ("reason", "answer"), [*REFUSALS.items(), ("content_filter", DECLINED)], ids=[*REFUSALS, "declined"]
)
def test_what_a_server_refuses_is_counted_apart_and_above_a_limit_nothing_is_complete(
    benchmarks: Path, tmp_path: Path, reason: str, answer: Answer
) -> None:
    asked = suite.load([benchmarks], ["en"])
    refused = {one.prompt for one in asked if one.item in ("0", "1", "2")}

    def behave(call: Call) -> Answer:
        words = call.body["messages"][-1]["content"][1]["text"]
        return answer if words in refused else Answer(text="A")

    with serving(behave) as (server, url):
        spec = failing(of_server(url, benchmarks, tmp_path))
        said = ask(spec)
        calls = len(server.calls)
        assert ask(spec) == said and len(server.calls) == calls
    found = {key for key, row in said.items() if row["skipped"] == f"refused: {reason}"}
    assert found == {
        one.key for one in asked if one.prompt in refused and said[one.key]["skipped"] != answers.LOST
    }
    assert all(said[key]["answer"] is None for key in found)
    firsts = {key for key in found if key[0] == "mmmb" and key[3] == 0}
    assert firsts

    def scored(name: str, **parameters: Any) -> Any:
        scores = ScoreAnswersSpec(
            output=tmp_path / name, answers={"m": spec.output}, benchmarks={"world": benchmarks},
            parameters=ScoreParameters(**parameters),
        )  # fmt: skip
        made = execute(SCORES, scores)
        return made.metrics["complete"], json.loads(manifest.file(tmp_path / name, "scores.json").read_text())

    complete, document = scored("strict")
    of_model = document["models"]["m"]
    assert not complete and not of_model["complete"]["missing"]
    place = of_model["complete"]["refused"]["mmmb en"]
    assert place["refused"] == sum(key[0] == "mmmb" for key in found) and place["too_many"]
    assert place["reasons"] == {reason: place["refused"]}
    choices = of_model["mmmb"]["en"]
    assert choices["extraction"]["refused"] == place["refused"]
    # Ours: not right. The tools': not there.
    assert choices["plain"]["n"] == 32 and choices["profiles"]["vlmevalkit"]["plain"]["n"] == 32 - len(firsts)
    assert scored("lenient", most_refused=0.5)[0]


def test_what_was_answered_before_a_server_went_away_is_in_the_journal(
    benchmarks: Path, tmp_path: Path
) -> None:
    def behave(call: Call) -> Answer:
        return Answer(text="A") if call.number < 20 else Answer(status=503, headers={"Retry-After": "3600"})

    with serving(behave) as (_, url):
        spec = of_server(url, benchmarks, tmp_path)
        with pytest.raises(Interrupted, match="3600 s more"):
            execute(STAGE, spec)
    (journal,) = (spec.output / "_work").glob("*/answers.jsonl")
    assert len(journal.read_text().splitlines()) == 1 + 20


def test_a_server_that_refuses_everything_is_no_model_for_this(benchmarks: Path, tmp_path: Path) -> None:
    with serving(lambda _: Answer("images are not taken", status=400)) as (_, url):
        spec = of_server(url, benchmarks, tmp_path)
        with pytest.raises(BadInput, match=r"20 requests failed in a row.*http_400.*images are not taken"):
            execute(STAGE, spec)


def picture(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("kind", "sent"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif"), ("BMP", "image/png")],
)  # fmt: skip
def test_an_image_is_sent_as_what_it_is(benchmarks: Path, kind: str, sent: str) -> None:
    asked = replace(suite.load([benchmarks], ["en"])[0], image=picture(kind))
    media_type, content = as_sent(asked)
    with Image.open(io.BytesIO(content)) as image:
        assert (media_type, Image.MIME[str(image.format)]) == (sent, sent)
    assert (content == asked.image) is (kind != "BMP")


def test_an_image_that_cannot_be_decoded_is_named_before_anything_is_paid_for(
    benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*tables: Any, **settings: Any) -> list[Any]:
        asked = load(*tables, **settings)
        return [
            replace(one, image=one.image[:60], image_sha256="0" * 64) if one.item == "7" else one
            for one in asked
        ]

    load = suite.load
    monkeypatch.setattr(suite, "load", damaged)
    with serving(lambda _: Answer(text="A")) as (server, url), pytest.raises(BadInput) as caught:
        execute(STAGE, of_server(url, benchmarks, tmp_path))
    assert "cannot be decoded" in caught.value.what and "_en." in caught.value.where
    assert "item '7'" in caught.value.where and not server.calls


def test_a_benchmark_with_long_answers_is_asked_with_its_own_limit(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    published.llava(tmp_path / "made", "en")
    published.mme(tmp_path / "made")
    columns = {"name": ["0.jpg"], "image": [published.png(0)]}
    pq.write_table(pa.table(columns), tmp_path / "made/images.parquet")
    limits: set[int] = set()

    def behave(call: Call) -> Answer:
        limits.add(call.body["max_tokens"])
        return Answer(text="yes")

    with serving(behave) as (_, url):
        said = ask(of_server(url, publish(tmp_path, "benchmark_files"), tmp_path / "run"))
    assert limits == {8, 1024} and len(said) == 3 + 8
