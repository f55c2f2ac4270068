"""The labelled set of what models answer, and what they meant. Only these labels may move the extractor."""

from __future__ import annotations

import re

import pytest
import yaml

from pipelines.benchmarks import lexicon
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
    ("I don't know", ["I don't know", "red"], "A"),
    ("It cannot be determined.", ["red", "cannot be determined"], "B"),
    ("It is not red but green.", COLOURS, "B"),
    ("I'm not sure, but I think it is B.", COLOURS, "B"),
    ("B, I cannot tell why", COLOURS, "B"),
    ("O gato está no sofá.", ["sofá", "cama"], "A"),  # "no" is "in the" here
    ("The dog is not moving.", ANIMALS, "A"),
    ("不是", ["是", "否"], "B"),
    ("Yok", ["Var", "Yok"], "B"),
    ("Without doubt red", COLOURS, "A"),
    ("毫无疑问是红色", FARBEN, "A"),
    ("Senza dubbio rosso", ["rosso", "blu"], "A"),
    ("It is not a toy, it is a real dog.", ANIMALS, "A"),
    ("The cat that is not sleeping", ["The cat that is not sleeping", "The dog"], "A"),
    ("Trees without leaves", ["Trees without leaves", "leaves"], "A"),
    ("six", ["one", "two", "three", "four", "five", "six"], "F"),
    ("The answer is F.", ["one", "two", "three", "four", "five", "six"], "F"),
    ("(H)", list("abcdefgh"), "H"),
    ("The correct answer is not red, but green.", COLOURS, "B"),
    ("It looks green to me.", COLOURS, "B"),
    ("I would say it's blue, not black.", COLOURS, "C"),
    ("Not sure, so I'd guess B.", COLOURS, "B"),
    ("The car is red and not green.", COLOURS, "A"),
    ("Possibly blue.", COLOURS, "C"),
    ("It's no longer red; now it's green.", COLOURS, "B"),
    ("无法确定，但我猜是B。", COLOURS, "B"),
    ("绿色，而非红色。", FARBEN, "B"),
    ("É verde e não vermelho.", ["vermelho", "verde"], "B"),
    ("Es ist grün und nicht rot.", ["rot", "grün"], "B"),
    ("Ich bin nicht sicher, aber ich tippe auf B.", ["rot", "grün"], "B"),
    ("C'est vert, pas rouge.", ["rouge", "vert"], "B"),
    ("Es verde, no rojo.", ["rojo", "verde"], "B"),
    ("È verde, non rosso.", ["rosso", "verde"], "B"),
    ("Kırmızı değil, yeşil.", ["kırmızı", "yeşil"], "B"),
    ("Это зелёный, но не красный.", ["красный", "зелёный"], "B"),
    ("أخضر وليس أحمر", ["أحمر", "أخضر"], "B"),
    ("Bukan merah tetapi hijau", ["merah", "hijau"], "B"),
    ("লাল নয়, সবুজ।", ["লাল", "সবুজ"], "B"),
    ("빨간색이 아니라 초록색입니다.", ["빨간색", "초록색"], "B"),
    ("ح", ["one", "two", "three", "four", "five", "six", "seven", "eight"], "H"),
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
    ("It is not red.", COLOURS),
    ("The image is too blurry to tell if it's red.", COLOURS),
    ("It doesn't look red.", COLOURS),
    ("There isn't any red here.", COLOURS),
    ("I can't see the image clearly, so I cannot choose.", COLOURS),
    ("It cannot be red.", COLOURS),
    ("I'm unable to tell whether the car is red.", COLOURS),
    ("看不清是红色还是绿色。", FARBEN),
    ("应该不是红色。", FARBEN),
    ("排除红色。", FARBEN),
    ("Acho que não é vermelho.", ["vermelho", "verde"]),
    ("A cor não é vermelho.", ["vermelho", "verde"]),
    ("Ich denke nicht, dass es rot ist.", ["rot", "grün"]),
    ("Je ne crois pas que ce soit rouge.", ["rouge", "vert"]),
    ("No creo que sea rojo.", ["rojo", "verde"]),
    ("Non credo sia rosso.", ["rosso", "verde"]),
    ("Kırmızı gibi görünmüyor.", ["kırmızı", "yeşil"]),
    ("Вряд ли красный.", ["красный", "зелёный"]),
    ("لا أعتقد أنه أحمر.", ["أحمر", "أخضر"]),
    ("Sepertinya bukan merah.", ["merah", "hijau"]),
    ("It is not B", ["Yes", "No"]),
    ("nan", ["Yes", "No"]),
    ("不是红色", FARBEN),
    ("Não é vermelho", ["vermelho", "verde"]),
    ("I don't know if it is red", COLOURS),
    ("I cannot tell whether it is red, or green.", COLOURS),
    ("Neither red nor green.", COLOURS),
    ("No idea", ["Yes", "No"]),
    ("Não sei", ["Sim", "Não"]),
    ("لا أعرف", ["نعم", "لا"]),
    ("对不起", ["对", "错"]),
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


def test_a_word_inside_another_does_not_count_in_a_script_with_vowel_signs() -> None:
    assert contained("জানালা", ["না"]) == set()
    assert contained("না, জানালা", ["না"]) == {0}
    assert contained("লালটি।", ["লাল"]) == {0}


def test_every_language_of_the_lexicon_has_every_key_in_patterns_that_compile() -> None:
    tables = yaml.safe_load(lexicon.FILE.read_text(encoding="utf-8"))
    assert {"en", "zh", "pt", "ar", "tr", "ru", "de", "fr", "es", "it", "bn", "id", "ko"} <= tables.keys()
    for language, table in tables.items():
        assert table.keys() == tables["en"].keys(), language
        for name in table:
            lexicon.key(name)
            for pattern in table[name]:
                # Folding makes lower case of all: of \W, too.
                assert not re.search(r"\[A-Z]", pattern), (language, name, pattern)
                assert not re.compile(pattern).search(""), (language, name, pattern)


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
        ("It is not a circle.", False, False, set()),
        ("我不知道是不是圆形。", False, False, set()),
        ("不是正方形，是圆形。", True, True, {"zh"}),
        ("", False, False, set()),
    ],
)
def test_an_open_answer_is_right_in_whatever_language_it_names_the_right_value_alone(
    answer: str, right: bool, resolved: bool, languages: set[str]
) -> None:
    found = open_answer(answer, SHAPES[0], SHAPES)
    assert (found.right, found.resolved, found.languages) == (right, resolved, languages)
