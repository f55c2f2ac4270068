"""What a model answered: the option's letter, or the value, in what it said. Never a guess.

Understands full-width letters and CJK punctuation, direction marks, Cyrillic look-alikes and Arabic
option letters, and the ways in which an answer is announced in MMMB's six languages. What cannot be
resolved is counted apart from what is wrong; both score zero.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.benchmarks.question import Concept

How = Literal["letter", "announced", "confirmed", "option_text", "only_letter", "unresolved"]

LETTERS = "ABCDE"
_LOOKALIKES = {"А": "A", "В": "B", "С": "C", "Е": "E"}
"""Cyrillic capitals that are written like the Latin letter of an option."""
_LONE_LOOKALIKE = re.compile(r"(?<!\w)[АВСЕ](?!\w)(?!\s+(?!или\b|и\b|не\b)[а-яё])")
"""One that stands alone, and is not the conjunction or preposition before a word ("А что", "В углу")."""
_TURKISH_ENDING = re.compile(r"(?<!\w)([A-E])['’](?:y?[iıuü]|[dt][iıuü]r|y?[ea])(?!\w)")
"""Turkish endings of a letter: "A'yi seçiyorum", "B'dir"."""
_ARABIC = {"أ": "A", "ا": "A", "ب": "B", "ج": "C", "د": "D", "ه": "E"}
_QUOTES_AND_BRACKETS = " \t\n\"'`*_()[]{}<>«»“”‘’【】「」『』《》〈〉"
_SENTENCE_ENDS = ".。!！?？,，、;；:：…"
_WORD = r"[^\W_]"
_LETTER = r"[\"'“‘(\[<《「*]*([A-E](?![A-Za-zÀ-ɏ0-9'’/])|[أابجده](?!\w))"

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
        )
    ),
    re.IGNORECASE,
)
_LEADING = re.compile(
    r"^[\"'“‘(\[<《「【*]*([A-E]|[أابجده](?!\w))[\"'”’)\]>》」】*]*\s*[.。:：、,،，)）\-—]\s*(?![A-E](?!\w))\S"
)
_CONFIRMED = re.compile(
    r"(?<![\w'’/])([A-E])(?![\w'’/])[\"')\]*]*\s*(?:"
    r"(?:is|would be)\s+(?:the\s+)?(?:correct|right|best)"
    r"|(?:选项|项)?(?:是)?(?:正确|对)(?!\s*吗)"
    r"|(?:está|é\s+a(?:\s+\w+)?)\s+(?:correta|certa)"
    r"|(?:هي|هو)?\s*(?:الإجابة|الجواب|الخيار)?\s*(?:ال)?صحيحة?"
    r"|(?:seçeneği(?:dir)?|şıkkı(?:dır)?|seçeneğidir)|doğru"
    r"|[—–-]?\s*(?:правильный|верный)\s+(?:ответ|вариант))"
)
_SINGLE = re.compile(r"(?<![A-Za-zÀ-ɏ0-9'’/])([A-E])(?![A-Za-zÀ-ɏ0-9'’/])")
_DENIED = re.compile(
    r"(?:\bnot|\bnão é|\bне|n['’]t(?: be)?|不是|并非|不选|不|排除|\bليست?|\bلا)\s*(?:option\s*)?$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"\W*(?:(?:is|was)\s+(?:not|wrong|incorrect|false)|isn['’]t|是错|不是|不对|错误|değil|yanlış)",
    re.IGNORECASE,
)
_ARTICLE = re.compile(
    r"A\s+(?!(?:or|and|is|was|ou|e|é|está|veya|ve|ya|değil|doğru\w*|seçene\w*|şık\w*|olmalı)(?!\w))[a-zà-ɏ]"
)


@dataclass(frozen=True)
class Choice:
    """The letter that was extracted, or None, and how."""

    letter: str | None
    how: How


def normalised(text: str) -> str:
    """NFKC (full-width forms become plain), without format characters, outer space removed."""
    text = unicodedata.normalize("NFKC", text)
    return "".join(character for character in text if unicodedata.category(character) != "Cf").strip()


def choice(answer: str, options: Sequence[str]) -> Choice:
    """The option that `answer` chooses, among `options` lettered from A.

    In this order: the answer is a letter, or starts with one as a label; it announces one; it is or
    holds the text of exactly one option; it holds exactly one letter of an option. Two different
    findings of one kind are no finding.
    """
    letters = LETTERS[: len(options)]
    text = _LONE_LOOKALIKE.sub(lambda found: _LOOKALIKES[found[0]], normalised(answer))
    text = _TURKISH_ENDING.sub(r"\1", text)
    bare = text.strip(_QUOTES_AND_BRACKETS + _SENTENCE_ENDS)
    if len(bare) == 1:
        letter = _ARABIC.get(bare, bare.upper())
        if letter in letters:
            return Choice(letter, "letter")
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
    held = contained(answer, options)
    if len(held) == 1:
        return Choice(letters[held.pop()], "option_text")
    single = {
        match[1]
        for match in _SINGLE.finditer(text)
        if match[1] in letters and not _starts_words(text, match) and not _denied(text, match, 1)
    }
    if len(single) == 1 and not held:
        return Choice(single.pop(), "only_letter")
    return Choice(None, "unresolved")


def _starts_words(text: str, match: re.Match[str]) -> bool:
    """Whether the letter that the match ends with is the article of English or Portuguese ("A cat")."""
    return bool(_ARTICLE.match(text, match.end() - 1))


def _denied(text: str, match: re.Match[str], letter: int) -> bool:
    """Whether the letter, or what announces it, is denied: "not B", "B is wrong"."""
    return bool(_DENIED.search(text[: match.start()]) or _DENIED_AFTER.match(text, match.end(letter)))


def _latin(letter: str) -> str:
    return _ARABIC.get(letter, letter)


def contained(answer: str, texts: Sequence[str]) -> set[int]:
    """Which of `texts` stand in the answer as words, leaving out those that stand inside a longer one.

    A text in a script with spaces must begin and end at a word's bounds, an English plural allowed.
    """
    said = normalised(answer).casefold()
    spans: list[tuple[int, int, int]] = []
    for number, text in enumerate(texts):
        wanted = normalised(text).casefold().strip(_SENTENCE_ENDS + " ")
        if not wanted:
            continue
        pattern = re.escape(wanted)
        if wanted[0].isascii() or _is_spaced(wanted[0]):
            pattern = rf"(?<!{_WORD}){pattern}"
        if wanted[-1].isascii() or _is_spaced(wanted[-1]):
            pattern = rf"{pattern}(?:e?s)?(?!{_WORD})"
        spans += [(match.start(), match.end(), number) for match in re.finditer(pattern, said)]
    return {
        number
        for start, end, number in spans
        if not any(a <= start and end <= b and b - a > end - start for a, b, _ in spans)
    }


def _is_spaced(character: str) -> bool:
    return unicodedata.name(character, "").split(" ")[0] in ("LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW")


@dataclass(frozen=True)
class OpenAnswer:
    """Whether an open answer is right, and in which of the languages its value was said."""

    right: bool
    resolved: bool
    languages: frozenset[str]


def open_answer(answer: str, gold: Concept, values: Sequence[Concept]) -> OpenAnswer:
    """The answer is right if, of all values of its topic in all languages, it holds the right one alone."""
    named = [(number, language, words) for number, value in enumerate(values) for language, words in value]
    held = [named[index] for index in contained(answer, [words for _, _, words in named])]
    said = {number for number, _, _ in held}
    right = said == {values.index(gold)}
    return OpenAnswer(right, bool(said), frozenset(language for _, language, _ in held))
