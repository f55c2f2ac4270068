"""Guarantees of the tokenizer, held against cn_clip's own."""

from __future__ import annotations

import cn_clip.clip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.clip import TEXT_LENGTH, bundled_vocabulary
from models.wordpiece import Wordpiece

TOKENIZER = Wordpiece.from_file(bundled_vocabulary())

CAPTIONS = [
    "",
    " ",
    "Two small red circles can be seen above one big blue square.",
    "图片的左边是两个小的红色圆形，右边是一个大的蓝色正方形。",
    "图片picture混合 mixed 文字text，¥99包邮!!!",
    "naïve café — Ünïcödé ﬁ ǅ İstanbul ΟΔΥΣΣΕΥΣ",
    "[SEP] [MASK] [CLS] [PAD] [unused1] ##ing",
    "nul\0here, new\nline, tab\there, zero\u200bwidth, \u2028separator, \x85next",
    "\ue000\uf8ff private use, \u0378 unassigned, \ufffd replacement, \ud800 surrogate",
    "한국어 ひらがな カタカナ عربى ไทย 👩‍👩‍👧 e\u0301 \uf900豈",
    "a" * 200,
    "a" * 201,
    "长" * 100,
    "IMG_20190412_0931.jpg",
]


def reference(text: str) -> list[int]:
    row = cn_clip.clip.tokenize([text], context_length=TEXT_LENGTH)[0].tolist()
    return row[: len(row) - row[::-1].index(next(token for token in reversed(row) if token))]


@pytest.mark.parametrize("caption", CAPTIONS)
def test_captions_of_the_web_have_the_ids_of_cn_clip(caption: str) -> None:
    assert TOKENIZER.ids(caption, TEXT_LENGTH) == reference(caption)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_any_text_has_the_ids_of_cn_clip(text: str) -> None:
    assert TOKENIZER.ids(text, TEXT_LENGTH) == reference(text)


def test_a_long_caption_is_cut_and_still_ends_with_its_end_mark() -> None:
    ids = TOKENIZER.ids("circle " * 100, TEXT_LENGTH)
    assert len(ids) == TEXT_LENGTH
    assert (ids[0], ids[-1]) == (TOKENIZER.cls, TOKENIZER.sep)
