"""The vision-language model: what it computes does not depend on how it is batched, padded or stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.chat import END_OF_TEXT, IGNORED, TURN_END, encode_conversation, prompt
from models.language_model import SmallConfig, make_language_model
from models.vision import VisionConfig
from models.vision_language import (
    VISION_FILE,
    VisionLanguageModel,
    load,
    make_visual_module,
    normalise,
    preprocess,
)
from models.weights import WeightsError
from models.word_tokenizer import make_word_tokenizer
from pipelines.training.samples import Sample, collate
from pipelines.world.documents import documents
from pipelines.world.render import draw
from pipelines.world.scenes import draw_scenes

QUESTIONS = [
    "What colour are the circles?",
    "圆形是什么颜色？",
    "How many squares are there?\nA. one\nB. two\nC. three\nD. four\nAnswer with the right option.",
    "描述这张图片。",
]


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    texts = [
        prompt(turn["question"], context=document["context"]) + turn["answer"]
        for document in documents(200, seed=0, languages=["en", "zh"])
        for turn in document["turns"]
    ]
    tokenizer = make_word_tokenizer(texts, 512)
    language_model = make_language_model(
        SmallConfig(width=32, layers=2, heads=2, mlp_width=64), vocabulary=tokenizer.get_vocab_size(), seed=1
    )
    visual = make_visual_module(VisionConfig(width=32, layers=1, heads=2, queries=4), 32, seed=1)
    return VisionLanguageModel(visual, language_model, tokenizer).eval()


def batch_of(model: VisionLanguageModel, count: int) -> list[Sample]:
    scenes = draw_scenes(count, seed=4)
    return [
        Sample(
            encode_conversation(
                model.tokenizer,
                [(QUESTIONS[index % 4], "red"), ("有几个？", "两个")],
                image_tokens=model.image_tokens,
            ),
            preprocess(draw(scene), model.visual.config.image_size),
        )
        for index, scene in enumerate(scenes)
    ]


def test_greedy_answers_do_not_depend_on_the_batch_size(model: VisionLanguageModel) -> None:
    images = [draw(scene) for scene in draw_scenes(8, seed=2)]
    questions = [QUESTIONS[index % 4] for index in range(8)]

    one_by_one = model.answer(images, questions, batch_size=1)

    assert model.answer(images, questions, batch_size=8) == one_by_one
    assert len(set(one_by_one)) > 1


def test_the_loss_of_a_batch_is_the_sum_of_its_rows_whatever_the_padding(model: VisionLanguageModel) -> None:
    samples = batch_of(model, 4)
    pad = model.tokenizer.token_to_id(END_OF_TEXT)

    def loss(part: list[Sample]) -> tuple[float, int]:
        batch = collate(part, pad=pad)
        losses = model(batch.ids, batch.labels, batch.pixels)
        assert len(losses) == batch.supervised
        return losses.sum().item(), len(losses)

    rows = [loss([sample]) for sample in samples]
    together = loss(samples)

    assert together[0] == pytest.approx(sum(row[0] for row in rows), rel=1e-5)
    assert together[1] == sum(row[1] for row in rows)


def test_the_head_on_supervised_positions_gives_the_loss_of_the_full_head(model: VisionLanguageModel) -> None:
    batch = collate(batch_of(model, 3), pad=0)
    assert batch.pixels is not None
    summed = model(batch.ids, batch.labels, batch.pixels).sum()

    embeddings = model.embed(batch.ids, model.visual(batch.pixels))
    logits = model.language_model(inputs_embeds=embeddings, use_cache=False).logits
    full = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )

    assert summed.item() == pytest.approx(full.item(), rel=1e-5)


def test_each_row_sees_its_own_image_in_the_places_of_its_image_tokens(model: VisionLanguageModel) -> None:
    batch = collate(batch_of(model, 2), pad=0)
    assert batch.pixels is not None
    seen = model.visual(batch.pixels)

    embeddings = model.embed(batch.ids, seen)

    for row in range(2):
        places = batch.ids[row] == model.image_id
        assert int(places.sum()) == model.image_tokens
        assert torch.equal(embeddings[row][places], seen[row])


def test_a_saved_model_answers_as_before(model: VisionLanguageModel, tmp_path: Path) -> None:
    images = [draw(scene) for scene in draw_scenes(4, seed=3)]
    model.save(tmp_path)

    again = load(tmp_path)

    assert again.answer(images, QUESTIONS) == model.answer(images, QUESTIONS)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_weights_that_do_not_fit_are_refused_by_name(model: VisionLanguageModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    save_file({"bridge.weight": torch.zeros(2, 2)}, tmp_path / VISION_FILE)

    with pytest.raises(WeightsError, match=VISION_FILE):
        load(tmp_path)

    (tmp_path / VISION_FILE).unlink()
    with pytest.raises(WeightsError, match=f"lacks {VISION_FILE}"):
        load(tmp_path)


@pytest.mark.parametrize("answer", ["two small red circles on the left.", "左边有两个小的红色圆形。"])
def test_only_answers_and_the_marks_that_end_them_are_supervised(
    model: VisionLanguageModel, answer: str
) -> None:
    encoded = encode_conversation(
        model.tokenizer, [("Describe the picture.", answer), ("有几个圆形？", "两个")], image_tokens=4
    )
    supervised = [token for token in encoded.labels if token != IGNORED]

    assert (
        model.tokenizer.decode(supervised, skip_special_tokens=False) == f"{answer}{TURN_END}两个{TURN_END}"
    )
    assert encoded.ids.count(model.image_id) == 4


def test_pixels_are_squashed_to_a_square_and_normalised() -> None:
    image = draw(draw_scenes(1, seed=0)[0]).resize((200, 50))
    pixels = preprocess(image, 48)

    assert pixels.shape == (3, 48, 48)
    assert normalise(torch.from_numpy(pixels)[None]).abs().max() < 3
