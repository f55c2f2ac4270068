"""The word tokenizer: words stay whole in both languages, and nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from models.chat import SPECIAL_TOKENS, TURN_START
from models.word_tokenizer import make_word_tokenizer
from pipelines.world.grammar import grammar
from pipelines.world.scenes import draw_scenes

SCENES = draw_scenes(300, seed=0)
TEXTS = [grammar(language).caption(scene, k) for k, scene in enumerate(SCENES) for language in ("en", "zh")]
TOKENIZER = make_word_tokenizer(TEXTS, 512)


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return tokenizer.encode(text, add_special_tokens=False).tokens


def test_words_are_tokens_with_and_without_spaces_between_them() -> None:
    assert pieces(TOKENIZER, "two small red circles") == ["two", "▁small", "▁red", "▁circles"]
    assert pieces(TOKENIZER, "左边有两个小的红色圆形。") == [
        "左边",
        "有",
        "两个",
        "小",
        "的",
        "红色",
        "圆形",
        "。",
    ]


@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4))
def test_any_text_of_the_training_alphabet_comes_back(texts: list[str]) -> None:
    text = "\n".join(texts)
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.decode(ids) == text


def test_the_same_texts_give_the_same_tokenizer() -> None:
    assert make_word_tokenizer(TEXTS, 512).to_str() == TOKENIZER.to_str()


@pytest.mark.parametrize("mark", SPECIAL_TOKENS)
def test_chat_marks_are_one_token_each(mark: str) -> None:
    assert pieces(TOKENIZER, mark) == [mark]


def test_a_small_vocabulary_keeps_every_character() -> None:
    small = make_word_tokenizer(TEXTS, 150)
    text = TEXTS[0] + TURN_START + TEXTS[1]
    assert small.get_vocab_size() <= 150
    assert small.decode(small.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text
