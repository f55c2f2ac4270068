"""Guarantees of a conversation: what the model reads is the whole of it, and what fails leaves no trace."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from PIL import Image

from models.vision_language import VisionLanguageModel
from pipelines.chat.conversation import Conversation, Streamed, shown
from pipelines.chat.generation import Asked, Generation, generation_for
from pipelines.chat.languages import LANGUAGES, request, spoken
from pipelines.chat.model import load
from pipelines.chat.pictures import open_image
from pipelines.errors import BadInput
from pipelines.world.grammar import grammar

FIRST, SECOND = "What is in the picture?", "图片里有什么？"
SHORT = Generation(max_new_tokens=8)


@pytest.fixture(scope="module")
def model(model_table: Path) -> VisionLanguageModel:
    return load(model_table)


def test_a_later_turn_reads_all_turns_and_each_image_where_it_was_shown(
    model: VisionLanguageModel, pictures: list[Path]
) -> None:
    images = [open_image(path) for path in pictures]
    talk = Conversation(model, SHORT)
    talk.show(images[0])
    first = talk.ask(FIRST)
    talk.show(images[1])
    talk.show(images[2])
    second = talk.ask(SECOND)

    turns = [(f"<image>\n{FIRST}", first.text), (f"<image><image>\n{SECOND}", None)]
    ids = model.chat.encode(turns, images=3).ids
    assert model.generate([ids], model.see(images), max_new_tokens=8) == [second.text]
    # The same words about the images in another order are another prompt, which the model can tell.
    other = model.embed(torch.tensor([ids]), model.see(images[::-1]))
    assert not torch.equal(other, model.embed(torch.tensor([ids]), model.see(images)))


def test_markers_in_a_question_say_where_its_images_stand(
    model: VisionLanguageModel, pictures: list[Path]
) -> None:
    talk = Conversation(model, SHORT)
    talk.show(open_image(pictures[0]))
    talk.ask(f"{FIRST} <image>")
    assert talk.turns[0][0] == f"{FIRST} <image>"
    with pytest.raises(BadInput, match="1 <image> markers, and 0 images"):
        talk.ask("<image> Again?")
    assert len(talk.turns) == 1


def test_words_come_one_after_another_and_end_as_the_answer(
    model: VisionLanguageModel, pictures: list[Path]
) -> None:
    said: list[str] = []
    talk = Conversation(model, Generation(max_new_tokens=12))
    talk.show(open_image(pictures[0]))
    answer = talk.ask(FIRST, said.append)
    assert len(said) > 2 and said[-1] == answer.text
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(said))
    again = Conversation(model, Generation(max_new_tokens=12))
    again.show(open_image(pictures[0]))
    assert again.ask(FIRST) == answer


def test_with_beams_the_answer_comes_whole(model: VisionLanguageModel, pictures: list[Path]) -> None:
    said: list[str] = []
    talk = Conversation(model, Generation(beams=3, max_new_tokens=8))
    talk.show(open_image(pictures[0]))
    answer = talk.ask(FIRST, said.append)
    assert said == [] and answer.text
    ids = model.chat.encode([(f"<image>\n{FIRST}", None)], images=1).ids
    seen = model.see([open_image(pictures[0])])
    assert [answer.text] == model.generate([ids], seen, max_new_tokens=8, beams=3)


def test_half_a_character_waits_for_its_other_half() -> None:
    said: list[str] = []
    parts = "中文".encode()
    streamer = Streamed(lambda ids: bytes(ids).decode(errors="replace"), said.append)
    for byte in parts:
        streamer.put(torch.tensor([byte]))
    assert said == ["中", "中文"]


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert shown("a\x1b[2Jb\n\tc\x07\x9b") == "a[2Jb\n\tc"


def test_a_stopped_answer_leaves_no_trace(model: VisionLanguageModel, pictures: list[Path]) -> None:
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    talk = Conversation(model, SHORT)
    talk.show(open_image(pictures[0]))
    with pytest.raises(KeyboardInterrupt):
        talk.ask(FIRST, stop)
    assert talk.turns == [] and talk.new_images == 1
    fresh = Conversation(model, SHORT)
    fresh.show(open_image(pictures[0]))
    assert talk.ask(FIRST) == fresh.ask(FIRST)


def test_a_full_conversation_is_refused_before_it_is_cut_and_can_start_anew(
    model: VisionLanguageModel, pictures: list[Path]
) -> None:
    talk = Conversation(model, Generation(max_new_tokens=64))
    talk.show(open_image(pictures[0]))
    first = talk.ask(FIRST)
    with pytest.raises(BadInput, match=r"too long: it has [0-9]+ tokens .* made for 256") as refused:
        for _ in range(256):
            talk.ask(FIRST)
    assert "start anew" in refused.value.remedy and f"turn {len(talk.turns) + 1}" in refused.value.where
    talk.start_anew()
    talk.show(open_image(pictures[0]))
    assert talk.ask(FIRST) == first


def test_words_that_the_model_has_no_token_for_are_named(model: VisionLanguageModel) -> None:
    talk = Conversation(model, SHORT)
    assert talk.unknown_words("What is in the picture?") == []
    assert talk.unknown_words("Ωmega?") == ["Ω"]


def test_a_question_in_another_language_gets_a_request_for_the_asked_one() -> None:
    assert request(FIRST, "zh") == f"{FIRST}\n请用中文回答。"
    assert request(SECOND, "zh") == SECOND
    assert request(FIRST, None) == FIRST
    assert spoken("one big red circle", "zh") == "English"
    assert spoken("一个红色圆形", "zh") is None
    # Of a word or two, languages of one script cannot be told.
    assert spoken("red", "de") is None


def test_descriptions_are_asked_for_in_the_words_of_training() -> None:
    for code in ("en", "zh"):
        assert LANGUAGES[code].describe in grammar(code).describe


def test_a_system_says_how_its_answers_are_looked_for(model: VisionLanguageModel) -> None:
    assert generation_for(model, Asked()) == Generation()
    viscpm = generation_for(model, Asked(system=Path("recipes/viscpm-chat.yaml")))
    assert (viscpm.beams, viscpm.repetition_penalty, viscpm.length_penalty) == (3, 1.1, 3)
    assert not viscpm.streams
    greedy = generation_for(model, Asked(system=Path("recipes/viscpm-chat.yaml"), beams=1))
    assert greedy.streams and greedy.settings() == {"repetition_penalty": 1.1}
    travels = {"num_beams": 2, "repetition_penalty": 1.2}
    own = generation_for(model, Asked(), travels)
    assert (own.beams, own.repetition_penalty) == (2, 1.2)
    assert generation_for(model, Asked(beams=1), travels).settings() == {"repetition_penalty": 1.2}
    with pytest.raises(BadInput, match="0 is too small"):
        generation_for(model, Asked(beams=0))


def test_an_image_is_upright_as_its_camera_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (2, 4)
