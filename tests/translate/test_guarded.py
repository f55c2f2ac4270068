"""The guard: what is known to go wrong is rejected by name, good translations pass, order is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.translate.guarded import (
    Reason,
    Reject,
    Translation,
    fault,
    repeats,
    script_share,
    translate_guarded,
)
from pipelines.translate.spec import GuardLimits
from pipelines.world.grammar import grammar
from pipelines.world.text import few_sentences, parallel_sentences

LIMITS = GuardLimits()
CAPTION = "Two small red circles to the left of one big blue square."


class Written(NamedTuple):
    text: str
    finished: bool
    failure: str = ""


class Dictionary:
    """A translator that looks texts up, and remembers what it was asked."""

    def __init__(self, entries: dict[str, str]) -> None:
        self.entries = entries
        self.calls: list[list[str]] = []

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[Written]:
        self.calls.append(list(texts))
        return [Written(self.entries[text], True) for text in texts]


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("两个小的红色圆形在一个大的蓝色正方形的左边。", None),
        ("", Reason.EMPTY),
        (" \n", Reason.EMPTY),
        ("一个大的" * 14 + "红色", Reason.REPETITION),
        ("哈哈哈哈哈哈哈哈哈哈哈哈", Reason.REPETITION),
        ("红色 ⁇ 在蓝色正方形的左边。", Reason.UNKNOWN_PIECE),
        ("Two small red circles to the left of one big blue square.", Reason.SCRIPT),
        ("два маленьких красных круга слева от квадрата", Reason.SCRIPT),
        ("…。", Reason.SCRIPT),
        ("红色的圆形、蓝色的方形、绿色的三角、黄色的十字、紫色的物体、黑色的东西" * 3, Reason.TOO_LONG),
    ],
)
def test_each_known_failure_is_rejected_by_its_name(output: str, reason: Reason | None) -> None:
    assert fault(CAPTION, output, "zh", LIMITS) == reason


def test_a_word_for_a_long_caption_is_too_short() -> None:
    assert fault(CAPTION * 2, "圆", "zh", LIMITS) is Reason.TOO_SHORT


def test_an_output_that_was_cut_off_is_rejected() -> None:
    assert fault("red", "红色", "zh", LIMITS, finished=False) is Reason.UNFINISHED


def test_numbers_and_codes_need_no_script() -> None:
    assert fault("2024-10-12", "2024-10-12", "zh", LIMITS) is None


def test_a_source_that_repeats_itself_may_be_translated_so() -> None:
    assert fault("no no no no no no no", "不要，不要，不要，不要，不要，不要，不要", "zh", LIMITS) is None


def test_every_sentence_of_the_world_passes() -> None:
    rows = few_sentences([grammar("en"), grammar("zh")])
    rows += parallel_sentences(500, seed=3, languages=["en", "zh"])
    assert {fault(row["en"], row["zh"], "zh", LIMITS) for row in rows} == {None}
    assert {fault(row["zh"], row["en"], "en", LIMITS) for row in rows} == {None}


@given(
    phrase=st.text("ab字 ,", min_size=2, max_size=40).filter(lambda text: any(map(str.isalnum, text))),
    before=st.text("xyz. ", max_size=20),
    times=st.integers(1, 5),
)
def test_a_phrase_that_succeeds_itself_too_often_is_always_seen(phrase: str, before: str, times: int) -> None:
    assert repeats(before + phrase * (times + 1), times)


@given(text=st.lists(st.integers(0, 9), unique=True).map(lambda digits: "".join(map(str, digits))))
def test_text_without_a_repeated_character_never_repeats(text: str) -> None:
    assert not repeats(text, 1)


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("圆形", "zh", 1.0),
        ("圆a", "zh", 0.5),
        ("まる", "ja", 1.0),
        ("круг", "ru", 1.0),
        ("cercle", "fr", 1.0),
        ("123", "zh", 0.0),
    ],
)
def test_the_share_of_a_language_s_script(text: str, language: str, share: float) -> None:
    assert script_share(text, language) == share


entries = st.dictionaries(
    st.text("abc ", min_size=1, max_size=6), st.sampled_from(["红色", "", "red", "大" * 30]), min_size=1
)


@given(entries=entries, data=st.data())
def test_results_stand_in_the_order_of_the_texts_and_each_text_is_translated_once(
    entries: dict[str, str], data: st.DataObject
) -> None:
    texts = data.draw(st.lists(st.sampled_from(sorted(entries)), max_size=20))
    translator = Dictionary(entries)
    results = translate_guarded(translator, texts, "en", "zh", LIMITS)
    assert [result.source for result in results] == texts
    asked = [text for call in translator.calls for text in call]
    assert asked == sorted({text for text in texts if text.strip()})
    for text, result in zip(texts, results, strict=True):
        if isinstance(result, Translation):
            assert result.text == entries[text] == "红色"
        else:
            assert result.output in (entries[text], "")


@given(entries=entries)
def test_the_order_of_the_texts_changes_no_result(entries: dict[str, str]) -> None:
    texts = list(entries)
    forwards = translate_guarded(Dictionary(entries), texts, "en", "zh", LIMITS)
    backwards = translate_guarded(Dictionary(entries), texts[::-1], "en", "zh", LIMITS)
    assert forwards == backwards[::-1]


def test_an_empty_text_never_reaches_the_model() -> None:
    translator = Dictionary({})
    assert translate_guarded(translator, ["", "  "], "en", "zh", LIMITS) == [
        Reject("", "", Reason.EMPTY),
        Reject("  ", "", Reason.EMPTY),
    ]
    assert translator.calls == []
