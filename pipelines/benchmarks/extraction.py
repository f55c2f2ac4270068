"""What a model answered: the option's letter, or the value, in what it said. Never a guess.

Understands full-width letters and CJK punctuation, direction marks, Cyrillic look-alikes and Arabic
option letters, and the ways in which an answer is announced in thirteen languages. What is denied ("not red") or not
known is not chosen. What cannot be resolved is counted apart from what is wrong; both score zero.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.benchmarks import lexicon
from pipelines.benchmarks.lexicon import WORD, normalised
from pipelines.benchmarks.question import LETTERS, Concept
from pipelines.benchmarks.short_answers import polarity, yes_or_no

How = Literal["letter", "announced", "confirmed", "yes_no", "option_text", "only_letter", "unresolved"]

_LOOKALIKES = {"А": "A", "В": "B", "С": "C", "Е": "E", "Н": "H"}
"""Cyrillic capitals that are written like the Latin letter of an option."""
_LONE_LOOKALIKE = re.compile(r"(?<!\w)[АВСЕН](?!\w)(?!\s+(?!или\b|и\b|не\b)[а-яё])")
"""One that stands alone, and is not the conjunction or preposition before a word ("А что", "В углу")."""
_TURKISH_ENDING = re.compile(r"(?<!\w)([A-H])['’](?:y?[iıuü]|[dt][iıuü]r|y?[ea])(?!\w)")
"""Turkish endings of a letter: "A'yi seçiyorum", "B'dir"."""
_ARABIC = {"أ": "A", "ا": "A", "ب": "B", "ج": "C", "د": "D", "ه": "E", "و": "F", "ز": "G", "ح": "H"}
_QUOTES_AND_BRACKETS = " \t\n\"'`*_()[]{}<>«»“”‘’【】「」『』《》〈〉"
_SENTENCE_ENDS = ".。!！?？,，、;；:：…"
_LETTER = r"[\"'“‘(\[<《「*]*([A-H](?![A-Za-zÀ-ɏ0-9'’/])|[أابجدهوزح](?!\w))"

_ANNOUNCED = re.compile(
    "|".join(
        announcement + r"\s*[:：\-—–]*\s*" + _LETTER
        for announcement in (
            r"\b(?:the\s+)?(?:correct\s+|right\s+|best\s+|final\s+)?(?:answer|option|choice)\s*(?:is|would\s+be)?"
            r"(?:\s+(?:option|choice))?",
            r"\bI\s+(?:choose|pick|select)(?:\s+option)?",
            r"答案(?:应该|应当)?(?:是|为|選|选)?(?:选项)?",
            r"(?:选择|选|選擇|選)(?:项|的是)?",
            r"(?:正确|正確)(?:的)?(?:选项|選項)(?:是|为)?",
            r"\b(?:resposta|opção|alternativa)(?:\s+(?:correta|certa))?(?:\s+é)?(?:\s+a)?(?:\s+(?:opção|letra|alternativa))?",
            r"\b(?:ответ|вариант)(?:\s+(?:это|является))?",
            r"\b(?:cevap|yanıt|seçenek)(?:ım|im)?(?:\s+şıkkı)?",
            r"(?:الإجابة|الجواب|الخيار)(?:\s+(?:الصحيحة|الصحيح))?(?:\s+(?:هي|هو))?",
            r"\b(?:antwort|option|buchstabe)(?:\s+(?:ist|lautet|wäre))?(?:\s+(?:die\s+)?(?:option|antwort|buchstabe))?",
            r"\b(?:réponse|option|lettre)(?:\s+(?:correcte|exacte))?(?:\s+est)?(?:\s+(?:la\s+)?(?:lettre|réponse))?(?:\s+l['’]option)?",
            r"\b(?:respuesta|opción|letra)(?:\s+(?:correcta|final))?(?:\s+es)?(?:\s+la)?(?:\s+(?:opción|letra))?",
            r"\b(?:risposta|opzione|lettera)(?:\s+(?:corretta|giusta|esatta))?(?:\s+è)?(?:\s+la)?(?:\s+(?:opzione|lettera))?",
            r"\b(?:jawaban|jawabannya|opsi|pilihan)(?:\s+yang\s+(?:benar|tepat))?(?:\s+adalah)?(?:\s+(?:opsi|pilihan))?",
            r"(?:정답|답)(?:은|는|이)?",
            r"(?:উত্তর|বিকল্প)(?:\s+(?:হল|হলো))?",
        )
    ),
    re.IGNORECASE,
)
_LEADING = re.compile(
    r"^[\"'“‘(\[<《「【*]*([A-H]|[أابجدهوزح](?!\w))[\"'”’)\]>》」】*]*\s*[.。:：、,،，)）\-—]\s*(?![A-H](?!\w))\S"
)
_CONFIRMED = re.compile(
    r"(?<![\w'’/])([A-H])(?![\w'’/])[\"')\]*]*\s*(?:"
    r"(?:is|would be)\s+(?:the\s+)?(?:correct|right|best)"
    r"|(?:选项|项)?(?:是)?(?:正确|对)(?!\s*吗)"
    r"|(?:está|é\s+a(?:\s+\w+)?)\s+(?:correta|certa)"
    r"|(?:هي|هو)?\s*(?:الإجابة|الجواب|الخيار)?\s*(?:ال)?صحيحة?"
    r"|(?:seçeneği(?:dir)?|şıkkı(?:dır)?|seçeneğidir)|doğru"
    r"|[—–-]?\s*(?:правильный|верный)\s+(?:ответ|вариант))"
)
_SINGLE = re.compile(r"(?<![A-Za-zÀ-ɏ0-9'’/])([A-H])(?![A-Za-zÀ-ɏ0-9'’/])")
_ARTICLE = re.compile(
    r"A\s+(?!(?:or|and|is|was|would|must|should|could|may|might|seems|looks|fits|because|since|as|not|but|rather|than"
    r"|ou|e|é|está|porque|pois|veya|ve|ya|değil|doğru\w*|seç\w*|şık\w*|olmalı|oder|und|ist|wäre|stimmt|nicht"
    r"|et|est|semble|o|y|es|parece|è|sembra|atau|dan|adalah|salah|benar)(?!\w))[a-zà-ɏ]"
)


@dataclass(frozen=True)
class Choice:
    """The letter that was extracted, or None, and how."""

    letter: str | None
    how: How


def choice(answer: str, options: Sequence[str]) -> Choice:
    """The option that `answer` chooses, among `options` lettered from A; an answer of "I don't know" chooses none.

    In this order: the answer is a letter, or starts with one as a label; it announces one; it says yes or no where these are the
    options; it is or holds the text of exactly one option; it holds exactly one letter of an option. Two different
    findings of one kind are no finding, and what is denied, or said not to be the only one, is not found.
    """
    letters = LETTERS[: len(options)]
    text = _latin_letters(normalised(answer))
    if (letter := _lone_letter(text)) is not None and letter in letters:
        return Choice(letter, "letter")
    text = lexicon.stated(text, _stands_alone, kept=options)
    if (
        (label := _LEADING.match(text))
        and (letter := _latin(label[1])) in letters
        and not _denied(text, label, 1)
    ):
        return Choice(letter, "letter")
    announced = {
        letter
        for match in _ANNOUNCED.finditer(text)
        for number, group in enumerate(match.groups(), start=1)
        # Patterns ignore case for their words; an option's letter is a capital, else "answer a ..." has one.
        if group and not group.islower() and (letter := _latin(group)) in letters
        if not _starts_words(text, match) and not _denied(text, match, number)
    }
    if announced:
        return Choice(announced.pop(), "announced") if len(announced) == 1 else Choice(None, "unresolved")
    confirmed = {
        match[1] for match in _CONFIRMED.finditer(text) if match[1] in letters and not _denied(text, match, 1)
    }
    if confirmed:
        return Choice(confirmed.pop(), "confirmed") if len(confirmed) == 1 else Choice(None, "unresolved")
    named = [
        match for match in _SINGLE.finditer(text) if match[1] in letters and not _starts_words(text, match)
    ]
    poles = [polarity(lexicon.folded(option).strip(lexicon.MARKS)) for option in options]
    if sorted(filter(None, poles)) == ["no", "yes"] and len(options) == 2:
        said, found_by = yes_or_no(answer)
        # "It is not B" denies a letter, and says no to nothing.
        held = {poles.index(said)} if said and not (named and found_by == "denial") else set()
        how: How = "yes_no"
    else:
        held = asserted(text, options)
        how = "option_text"
    if len(held) == 1:
        return Choice(letters[held.pop()], how)
    single = {match[1] for match in named if not _denied(text, match, 1)}
    several = any(lexicon.one_of_several(text[: match.start(1)], text[match.end(1) :]) for match in named)
    if len(single) == 1 and not held and not several:
        return Choice(single.pop(), "only_letter")
    return Choice(None, "unresolved")


def _latin_letters(text: str) -> str:
    """The text with Cyrillic look-alikes of an option's letter made Latin, and its Turkish endings taken away."""
    return _TURKISH_ENDING.sub(r"\1", _LONE_LOOKALIKE.sub(lambda found: _LOOKALIKES[found[0]], text))


def _lone_letter(text: str) -> str | None:
    bare = text.strip(_QUOTES_AND_BRACKETS + _SENTENCE_ENDS)
    return _ARABIC.get(bare, bare.upper()) if len(bare) == 1 else None


def _stands_alone(clause: str) -> str | None:
    """The letter that a folded clause is, or announces, by itself."""
    found = _lone_letter(clause)
    if found is None and (announced := _ANNOUNCED.fullmatch(clause)):
        found = next(group for group in announced.groups() if group)
    return found


def _starts_words(text: str, match: re.Match[str]) -> bool:
    """Whether the letter that the match ends with is the article of English or Portuguese ("A cat")."""
    return bool(_ARTICLE.match(text, match.end() - 1))


def _denied(text: str, match: re.Match[str], letter: int) -> bool:
    """Whether the letter, or what announces it, is denied: "not B", "B is wrong"."""
    return lexicon.denied(text[: match.start()], text[match.end(letter) :], letter=True, bare=True)


def _latin(letter: str) -> str:
    return _ARABIC.get(letter, letter)


def contained(answer: str, texts: Sequence[str]) -> set[int]:
    """Which of `texts` stand in the answer as words, leaving out those that stand inside a longer one.

    A text in a script with spaces must begin and end at a word's bounds, an English plural allowed.
    """
    return {number for _, _, number in _mentions(normalised(answer).casefold(), texts)}


def asserted(answer: str, texts: Sequence[str]) -> set[int]:
    """As `contained`, without those that are denied: "not red", "neither red nor green".

    None at all where one is said not to be the only one: "not only red" names no single one.
    """
    said = normalised(answer).casefold()
    mentions = sorted(_mentions(said, texts))
    if any(lexicon.one_of_several(said[:start], said[end:]) for start, end, _ in mentions):
        return set()
    return {
        number
        for start, end, number in mentions
        # "verde, no rojo": a bare "no" denies beside another option only, for it is "in the" in Portuguese.
        if not lexicon.denied(
            said[:start],
            said[end:],
            bare=any(begin < start and other != number for begin, _, other in mentions),
        )
    }


def _mentions(said: str, texts: Sequence[str]) -> list[tuple[int, int, int]]:
    """Where which text stands in the answer in lower case: (start, end, number)."""
    spans: list[tuple[int, int, int]] = []
    for number, text in enumerate(texts):
        wanted = normalised(text).casefold().strip(_SENTENCE_ENDS + " ")
        if not wanted:
            continue
        pattern = re.escape(wanted)
        if wanted[0].isascii() or _begins_at_a_space(wanted[0]):
            pattern = rf"(?<!{WORD}){pattern}"
        if wanted[-1].isascii() or _ends_at_a_space(wanted[-1]):
            pattern = rf"{pattern}(?:e?s)?(?!{WORD})"
        spans += [(match.start(), match.end(), number) for match in re.finditer(pattern, said)]
    return [
        (start, end, number)
        for start, end, number in spans
        if not any(a <= start and end <= b and b - a > end - start for a, b, _ in spans)
    ]


_SPACED = ("LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI")
_SUFFIXED = ("BENGALI", "HANGUL")
"""Scripts whose languages put endings on a word without a space."""


def _begins_at_a_space(character: str) -> bool:
    return unicodedata.name(character, "").split(" ")[0] in (*_SPACED, *_SUFFIXED)


def _ends_at_a_space(character: str) -> bool:
    return unicodedata.name(character, "").split(" ")[0] in _SPACED


@dataclass(frozen=True)
class OpenAnswer:
    """Whether an open answer is right, and in which of the languages its value was said."""

    right: bool
    resolved: bool
    languages: frozenset[str]


def open_answer(answer: str, gold: Concept, values: Sequence[Concept]) -> OpenAnswer:
    """The answer is right if, of all values of its topic in all languages, it asserts the right one alone."""
    named = [(number, language, words) for number, value in enumerate(values) for language, words in value]
    texts = [words for _, _, words in named]
    text = lexicon.stated(normalised(answer), lambda _: None, kept=texts)
    held = [named[index] for index in asserted(text, texts)]
    said = {number for number, _, _ in held}
    right = said == {values.index(gold)}
    return OpenAnswer(right, bool(said), frozenset(language for _, language, _ in held))
