"""The labelled set of what models answer, and what they meant. Only these labels may move the extractor."""

from __future__ import annotations

import pytest

from pipelines.benchmarks.extraction import choice, contained, open_answer

COLOURS = ["red", "green", "blue", "black"]
FARBEN = ["红色", "绿色", "蓝色", "黑色"]
ANIMALS = ["dog", "bird", "cat", "cow"]

LETTERS = [
    ("A", COLOURS, "A"),
    ("b", COLOURS, "B"),
    ("(C)", COLOURS, "C"),
    ("D.", COLOURS, "D"),
    ("A。", FARBEN, "A"),
    ("Ｂ", FARBEN, "B"),
    ("（Ｃ）", FARBEN, "C"),
    ("【D】", FARBEN, "D"),
    ('"B"', COLOURS, "B"),
    ("<B>", COLOURS, "B"),
    ("**B**", COLOURS, "B"),
    ("B\u200f", COLOURS, "B"),
    ("أ", COLOURS, "A"),
    ("ب", COLOURS, "B"),
    ("В", COLOURS, "B"),  # Cyrillic Ve
    ("A. red", COLOURS, "A"),
    ("B: green", COLOURS, "B"),
    ("C) blue", COLOURS, "C"),
    ("A、红色", FARBEN, "A"),
    ("B．绿色", FARBEN, "B"),
    ("C：蓝色", FARBEN, "C"),
    ("A, because the circle is red and not blue", COLOURS, "A"),
    ("The answer is B", COLOURS, "B"),
    ("The correct answer is: (C).", COLOURS, "C"),
    ("The right option is D because of the colour.", COLOURS, "D"),
    ("Option B because it is very clearly the right one", COLOURS, "B"),
    ("I choose C", COLOURS, "C"),
    ("答案是A", FARBEN, "A"),
    ("答案：B", FARBEN, "B"),
    ("答案为 C。", FARBEN, "C"),
    ("选C", FARBEN, "C"),
    ("我选择D。", FARBEN, "D"),
    ("选项A", FARBEN, "A"),
    ("正确答案是 B，因为 A 是错误的", FARBEN, "B"),
    ("正确的选项是D", FARBEN, "D"),
    ("应该是C吧", FARBEN, "C"),
    ("A resposta correta é B", COLOURS, "B"),
    ("Правильный ответ — В", COLOURS, "B"),
    ("Cevap: C", COLOURS, "C"),
    ("الإجابة الصحيحة هي B", COLOURS, "B"),
    ("A is correct", COLOURS, "A"),
    ("B is right and A is wrong", COLOURS, "B"),
    ("red", COLOURS, "A"),
    ("Green.", COLOURS, "B"),
    ("They are blue", COLOURS, "C"),
    ("黑色", FARBEN, "D"),
    ("圆形是绿色的。", FARBEN, "B"),
    ("A cat", ANIMALS, "C"),
    ("It is a bird.", ANIMALS, "B"),
    ("banana", ["apple", "banana", "nan", "none"], "B"),
    ("None", ["None", "One", "Two", "NA"], "A"),
    ("not known", ["no", "not known", "yes", "maybe"], "B"),
]

NOTHING = [
    ("", COLOURS),
    ("Bilmiyorum", COLOURS),
    ("I don't know.", COLOURS),
    ("我不知道", FARBEN),
    ("E", COLOURS),
    ("A or B", COLOURS),
    ("The answer is A. The answer is B.", COLOURS),
    ("red or green", COLOURS),
    ("Ela é uma Avó", COLOURS),
    ("not B", COLOURS),
    ("A is wrong", COLOURS),
    ("A是错误的", FARBEN),
    ("不是B", FARBEN),
    ("A lot of them", COLOURS),
    ("12", COLOURS),
    ("reddish", COLOURS),
    ("紫色", FARBEN),
]


@pytest.mark.parametrize(("answer", "options", "letter"), LETTERS)
def test_what_was_chosen_is_found(answer: str, options: list[str], letter: str) -> None:
    assert choice(answer, options).letter == letter


@pytest.mark.parametrize(("answer", "options"), NOTHING)
def test_what_chooses_nothing_stays_unresolved_and_is_never_guessed(answer: str, options: list[str]) -> None:
    found = choice(answer, options)
    assert found.letter is None and found.how == "unresolved"


def test_a_letter_beyond_the_options_is_none_of_them() -> None:
    assert choice("D", ["yes", "no"]).letter is None


def test_a_text_inside_a_longer_one_does_not_count_as_said() -> None:
    assert contained("not known", ["no", "not known", "known"]) == {1}


SHAPES = [(("en", "circle"), ("zh", "圆形")), (("en", "square"), ("zh", "正方形"))]


@pytest.mark.parametrize(
    ("answer", "right", "resolved", "languages"),
    [
        ("circle", True, True, {"en"}),
        ("Circles.", True, True, {"en"}),
        ("圆形。", True, True, {"zh"}),
        ("circle 圆形", True, True, {"en", "zh"}),
        ("square", False, True, {"en"}),
        ("a circle or a square", False, True, {"en"}),
        ("semicircle", False, False, set()),
        ("", False, False, set()),
    ],
)
def test_an_open_answer_is_right_in_whatever_language_it_names_the_right_value_alone(
    answer: str, right: bool, resolved: bool, languages: set[str]
) -> None:
    found = open_answer(answer, SHAPES[0], SHAPES)
    assert (found.right, found.resolved, found.languages) == (right, resolved, languages)
