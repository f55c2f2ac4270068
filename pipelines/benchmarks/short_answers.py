"""Answers of a word or two: yes or no in many languages, labels, short phrases. Never a guess."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from pipelines.benchmarks.benchmark import Reader, Reading
from pipelines.benchmarks.extraction import contained, normalised
from pipelines.benchmarks.question import Asked

YES_WORDS = (
    *(
        "yes",
        "yeah",
        "yep",
        "correct",
        "是",
        "是的",
        "对",
        "有",
        "正确",
        "sim",
        "نعم",
        "أجل",
        "evet",
        "да",
        "ja",
        "oui",
        "sí",
        "si",
    ),
    *("হ্যাঁ", "ya", "네", "예"),
)
NO_WORDS = (
    *(
        "no",
        "nope",
        "incorrect",
        "否",
        "不是",
        "不",
        "没有",
        "不对",
        "错误",
        "não",
        "لا",
        "كلا",
        "hayır",
        "нет",
        "nein",
        "non",
    ),
    *("না", "tidak", "아니요", "아니오"),
)
_FIRST_WORD = re.compile(r"[\W_]*([^\W_]+)")
_ARTICLE = re.compile(r"^(?:a|an|the)\s+")
Extractor = Callable[[str, Asked], tuple[str | None, str]]


def word_reader(extract: Extractor) -> Reader:
    """A reader from what finds a word in an answer: right where it is the gold."""

    def read(asked: Asked, answer: str) -> Reading:
        said, how = extract(answer, asked)
        return Reading(said, how, said == asked.gold)

    return read


def yes_or_no(answer: str, _: Asked | None = None) -> tuple[str | None, str]:
    """Yes or no by the first word, else by the only one of the two that stands in the answer."""
    text = normalised(answer).casefold()
    first = _FIRST_WORD.match(text)
    for said, words in (("yes", YES_WORDS), ("no", NO_WORDS)):
        if first and first[1] in words:
            return said, "first_word"
    return only(answer, {"yes": YES_WORDS, "no": NO_WORDS})


def only(answer: str, words: Mapping[str, Sequence[str]]) -> tuple[str | None, str]:
    """The name whose words stand in the answer, if no other name's do; a word inside a longer one does not count."""
    named = [(name, word) for name, of_name in words.items() for word in of_name]
    held = {named[index][0] for index in contained(answer, [word for _, word in named])}
    return (held.pop(), "word") if len(held) == 1 else (None, "unresolved")


def normalised_phrase(answer: str) -> str:
    """The first line, in lower case, without outer punctuation and a leading English article."""
    lines = normalised(answer).casefold().splitlines()
    text = lines[0].strip(" \t.,;:!?\"'()[]。，！？、") if lines else ""
    return _ARTICLE.sub("", text)
