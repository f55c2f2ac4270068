"""Models beside ours: any that transformers loads, and any behind a server, on the same questions and rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
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
from pipelines.answer.spec import STAGE, AnswerParameters, AnswerSpec
from pipelines.answer.transformers_model import TransformersModel
from pipelines.benchmarks import answers, suite
from pipelines.benchmarks.question import Key
from pipelines.errors import BadInput
from pipelines.remote.spec import Conduct, Server
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
    remember = TransformersModel.__init__

    def remembered(self: TransformersModel, *arguments: Any, **settings: Any) -> None:
        remember(self, *arguments, **settings)
        made.append(self)

    monkeypatch.setattr(TransformersModel, "__init__", remembered)
    together = ask(of_llava(llava, benchmarks, tmp_path / "together", 48))
    assert list(together) == [one.key for one in suite.load([benchmarks], ["en", "zh"])]
    assert len({row["answer"] for row in together.values()}) > 3
    images = len({row["image"] for row in together.values()})
    asked = sum(row["answer"] is not None for row in together.values())
    assert made[0].seen.computed == images < asked
    monkeypatch.setattr(transformers_model, "KEPT_BYTES", 0)
    few = ask(of_llava(llava, benchmarks, tmp_path / "few", 7))
    assert few == together


def test_a_folder_without_a_model_is_refused(benchmarks: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="cannot be loaded") as caught:
        execute(STAGE, of_llava(tmp_path / "empty", benchmarks, tmp_path / "table", 8))
    assert str(tmp_path / "empty") in caught.value.where


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


def test_questions_that_a_server_does_not_answer_are_no_answers_and_a_second_run_goes_on(
    benchmarks: Path, tmp_path: Path
) -> None:
    broken, asked = True, 0

    def behave(call: Call) -> Answer:
        nonlocal asked
        asked += 1
        return Answer(status=500) if broken and call.number % 10 == 3 else Answer(text="B")

    with serving(behave) as (_, url):
        spec = of_server(url, benchmarks, tmp_path)
        with pytest.raises(BadInput, match="questions got no answer"):
            execute(STAGE, spec.model_copy(update={"conduct": Conduct(backoff_seconds=0.01, attempts=1)}))
        before, broken = asked, False
        said = ask(spec)
    questions = sum(row["answer"] is not None for row in said.values())
    assert asked - before < questions < asked


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
