"""What a translation must leave as it is: never shown to the model, or checked afterwards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.translate.guarded import Reason, Reject, Translation
from pipelines.translate.pieces import LETTER_CHANGED, NUMBER_CHANGED, changed, joined, pieces


def shown(text: str, *, sentences: bool = True) -> list[str]:
    """What the model is given."""
    return [piece.text for piece in pieces(text, sentences=sentences) if piece.translate]


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        ("<image>\nWhat is it?", ["What is it?"]),
        ("What is it?\n<image>", ["What is it?"]),
        (
            "Which one?\nA. a red circle\nB. a blue square\nAnswer with the letter.",
            ["Which one?", "a red circle", "a blue square", "Answer with the letter."],
        ),
        ("(A) yes\n(B) no", ["yes", "no"]),
        ("1. First.\n2) Second.\n- Third.", ["First.", "Second.", "Third."]),
        ("The cat is at [0.12, 0.3, 0.5, 0.8] now", ["The cat is at", "now"]),
        ("See https://example.org/a?b=1 for `x = 1` here", ["See", "for", "here"]),
        ("A", []),
        ("(B)", []),
        ("C.", []),
        ("42", []),
        ("", []),
        (
            "A dog runs. It is 3.5 m from Mr. Smith! Good?",
            ["A dog runs.", "It is 3.5 m from Mr. Smith!", "Good?"],
        ),
        ("圆形在左边。它是红色的！", ["圆形在左边。", "它是红色的！"]),
    ],
)
def test_only_prose_is_shown_to_the_model(text: str, prose: list[str]) -> None:
    assert shown(text) == prose


def test_line_by_line_leaves_sentences_together() -> None:
    assert shown("<image>\nA dog. It runs.\nWhere?", sentences=False) == ["A dog. It runs.", "Where?"]


@given(text=st.text(alphabet="aA bB.\n<image>()[],0123-*`!?。 é中", max_size=60), sentences=st.booleans())
def test_the_pieces_are_the_text(text: str, sentences: bool) -> None:
    assert "".join(piece.text for piece in pieces(text, sentences=sentences)) == text


@given(text=st.text(alphabet="aA bB.\n<image>()[],0123-*", max_size=60))
def test_no_placeholder_or_line_break_is_ever_shown(text: str) -> None:
    assert not [part for part in shown(text) if "<image>" in part or "\n" in part]


@pytest.mark.parametrize(
    ("source", "output", "reason"),
    [
        ("There are 12 dogs.", "有12只狗。", ""),
        ("There are 12 dogs.", "有十二只狗。", NUMBER_CHANGED),
        ("There are 12 dogs.", "有21只狗。", NUMBER_CHANGED),
        ("There are 12 dogs and 12 cats.", "有12只狗。", NUMBER_CHANGED),
        ("There are 12 dogs.", "هناك ١٢ كلبا.", ""),
        ("It costs 1,000.50 dollars.", "Es kostet 1.000,50 Dollar.", ""),
        ("Two dogs.", "2只狗。", ""),
        ("The answer is B.", "答案是B。", ""),
        ("The answer is B.", "答案是Ｂ。", ""),
        ("The answer is B.", "Правильный ответ — В.", LETTER_CHANGED),
        ("The answer is A.", "答案是一个。", LETTER_CHANGED),
        ("A dog is here.", "这里有一只狗。", ""),
        ("I see C and D.", "我看到C。", LETTER_CHANGED),
    ],
)
def test_numbers_and_named_letters_are_carried_over(source: str, output: str, reason: str) -> None:
    assert changed(source, output) == reason


def test_a_text_is_joined_around_what_stays_or_rejected_for_its_first_fault() -> None:
    parts = pieces("<image>\nHow many?\nA. 3 dogs\nB. none")
    results: dict[str, Translation | Reject] = {
        text: Translation(text, {"How many?": "多少？", "3 dogs": "3只狗", "none": "没有"}[text])
        for text in ("How many?", "3 dogs", "none")
    }
    assert joined(parts, results) == ("<image>\n多少？\nA. 3只狗\nB. 没有", "")
    assert joined(parts, {**results, "3 dogs": Translation("3 dogs", "狗")}) == (None, NUMBER_CHANGED)
    assert joined(parts, {**results, "none": Reject("none", "", Reason.EMPTY)}) == (None, "empty")
