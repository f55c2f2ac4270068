"""The words by which answers are recognised, in thirteen languages, and what they do to a text: `lexicon.yaml`, compiled.

A model may answer in another language than it was asked in, so every language's words count for every answer; those of
another script than the text's are skipped. Adding a language is adding a table to the file.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("lexicon.yaml")
MARKS = " \t\n\r\"'`*_#~()[]{}<>«»“”‘’【】「」『』《》〈〉.,;:!?¿¡。，！？、؟،؛।…-–—/\\$|&"
"""What may stand around an answer."""
WORD = r"(?:[^\W_]|[\u0300-\u036f\u0900-\u0963\u0966-\u0dff])"
"""A character of a word, vowel signs of Indic scripts included, which Python's \\w leaves out."""
_PLAIN_WORD = r"[\w\u0300-\u036f\u0900-\u0963\u0966-\u0dff]"
"""The same in plain text, which has no underscores."""
_GAP = r"[\s\"'*_(\[<«“‘「]*"
"""What may stand between a denial and what it denies: never a comma."""
_SENTENCE_END = re.compile(r"(?:(?<!\d)\.|\.(?!\d)|[!?。؟;؛।…\n\r]|[()\[\]{}（）])+")
_CLAUSE_END = re.compile(r"[,،、:—–]|\s-\s")
_UNSPACED, _SUFFIXED = frozenset({"CJK"}), frozenset({"HANGUL"})
_SCRIPTS = {"zh": "CJK", "ar": "ARABIC", "ru": "CYRILLIC", "bn": "BENGALI", "ko": "HANGUL"}
"""The script of a language, where it is not the Latin one."""
_FOLDED_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK", "ARABIC")
_REACH = 80
"""How many characters before a word are searched for its denial."""
Span = tuple[int, int]


def normalised(text: str) -> str:
    """NFKC (full-width forms become plain), without format characters, outer space removed."""
    text = unicodedata.normalize("NFKC", text)
    return "".join(character for character in text if unicodedata.category(character) != "Cf").strip()


@functools.lru_cache(maxsize=8192)
def _plain(character: str) -> str:
    if character in "’‘ʼ`_":
        return " " if character == "_" else "'"
    script = unicodedata.name(character, "").split(" ")[0]
    if script not in (*_FOLDED_SCRIPTS, "COMBINING"):
        return character
    parts = unicodedata.normalize("NFKD", character.casefold())
    return "".join(one for one in parts if not unicodedata.combining(one)).replace("ı", "i")


def plain(text: str) -> str:
    """A normalised text in lower case, without accents and vowel marks of the Latin, Cyrillic and Arabic scripts."""
    return "".join(map(_plain, text))


def folded(text: str) -> str:
    """`plain` of any text."""
    return plain(normalised(text))


class Words:
    """Patterns by script, searched for in plain text."""

    def __init__(self, by_script: Mapping[str, Sequence[str]]) -> None:
        self._by_script = {
            script: re.compile(_bounded("|".join(of_one), script)) for script, of_one in by_script.items()
        }

    def spans(self, text: str) -> Iterator[Span]:
        """Where it stands in a folded text."""
        for pattern in self._of(text):
            yield from (match.span() for match in pattern.finditer(text))

    def search(self, text: str) -> bool:
        return any(pattern.search(text) for pattern in self._of(text))

    def fullmatch(self, text: str) -> bool:
        return any(pattern.fullmatch(text) for pattern in self._of(text))

    def match(self, text: str) -> int:
        """How many characters of the text's beginning it takes; 0 where it does not stand there."""
        return max((found.end() for pattern in self._of(text) if (found := pattern.match(text))), default=0)

    def _of(self, text: str) -> list[re.Pattern[str]]:
        scripts = _scripts(text)
        return [pattern for script, pattern in self._by_script.items() if script in scripts]


@functools.lru_cache(maxsize=4096)
def _scripts(text: str) -> frozenset[str]:
    return frozenset(unicodedata.name(character, "").split(" ")[0] for character in set(text))


@functools.cache
def _tables() -> dict[str, dict[str, list[str]]]:
    tables: dict[str, dict[str, list[str]]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return tables


def _bounded(patterns: str, script: str) -> str:
    """The alternatives as whole words, in scripts whose languages part them by spaces."""
    before = "" if script in _UNSPACED else rf"(?<!{_PLAIN_WORD})"
    after = "" if script in _UNSPACED | _SUFFIXED else rf"(?:(?<=')|(?!{_PLAIN_WORD}))"
    return f"{before}(?:{patterns}){after}"


def _by_script(*keys: str) -> dict[str, list[str]]:
    """The patterns of keys in all languages, as they are searched for in plain text."""
    parts: dict[str, list[str]] = {}
    for language, table in _tables().items():
        for name in keys:
            for pattern in table[name]:
                spaced = folded(pattern).replace(" ?", r"\s*").replace(" ", r"\s+")
                parts.setdefault(_SCRIPTS.get(language, "LATIN"), []).append(spaced)
    return parts


@functools.cache
def key(name: str) -> Words:
    """One key's words of all languages."""
    return Words(_by_script(name))


@functools.cache
def _ending(name: str) -> Words:
    """One of a key's words at the end of a text, with what may stand between it and the word that follows."""
    fillers = _by_script("filler")
    parts = {}
    for script, words in _by_script(name).items():
        filler = _bounded("|".join(fillers.get(script, ["(?!)"])), script)
        parts[script] = [rf"(?:{'|'.join(words)})(?:{_GAP}{filler}){{0,6}}{_GAP}$"]
    return Words(parts)


_BARE_NO = re.compile(rf"(?<!{_PLAIN_WORD})(?:no|nao|non|لا|tidak)\s+$")
_AFTER_GAP = re.compile(r"[\s\"'*_)\]>»”’」]*")


def denied(before: str, after: str, *, letter: bool = False, bare: bool = False) -> bool:
    """Whether what stands between the two texts is denied: "not", "is wrong", in any language.

    Behind an option's `letter` more words deny than behind its text: "B is not" does, "the dog is not" goes on. With `bare`,
    a mere "no" before it denies, too.
    """
    before = plain(before[-_REACH:])
    if _ending("not").search(before) or (bare and _BARE_NO.search(before)):
        return True
    after = _behind(after)
    return bool(key("not_after").match(after) or (letter and key("not_after_letter").match(after)))


def one_of_several(before: str, after: str) -> bool:
    """Whether what stands between the two texts is said not to be all: "not only red", in any language."""
    folded_before = plain(before[-_REACH:])
    return bool(
        _ending("not_only").search(folded_before)
        or key("not_only_after").match(_behind(after))
        or (_ending("only").search(folded_before) and denied("", after, letter=True))
    )


def _behind(after: str) -> str:
    """What follows, folded, from its first word on."""
    after = plain(after[:_REACH])
    return after[_AFTER_GAP.match(after).end() :]  # type: ignore[union-attr]


@dataclass(frozen=True)
class Clause:
    """A part of an answer between commas: as it stands there, and folded without marks around it."""

    text: str
    folded: str


def sentences(text: str) -> list[list[Clause]]:
    """The sentences of a normalised text, each as its clauses. A contrast ("but") begins a sentence, a reason a clause."""
    cuts = sorted(
        {0, len(text), *(match.end() for match in _SENTENCE_END.finditer(text)), *_starts(text, "contrast")}
    )
    found = []
    for start, end in itertools.pairwise(cuts):
        sentence = text[start:end]
        inner = sorted(
            {
                0,
                len(sentence),
                *(match.end() for match in _CLAUSE_END.finditer(sentence)),
                *_starts(sentence, "reason"),
            }
        )
        clauses = [sentence[a:b] for a, b in itertools.pairwise(inner)]
        kept = [Clause(one, plain(one).strip(MARKS)) for one in clauses]
        if kept:
            found.append(kept)
    return found


def _starts(text: str, name: str) -> list[int]:
    """Where words of a key begin, in the text as it stands."""
    places = [place for place, character in enumerate(text) for _ in _plain(character)]
    return [places[start] for start, _ in key(name).spans(plain(text))]


def stated(
    text: str,
    bare: Callable[[str], str | None],
    *,
    kept: Sequence[str] = (),
    open_counts: bool = False,
) -> str:
    """The text without what states nothing: "I don't know" and, unless `open_counts`, "it is unclear".

    Such a clause takes the rest of its sentence with it ("I don't know if it is red, or green"), up to an
    opinion ("..., I think B"), and the clauses before it, unless the first is an answer that `bare` reads by itself ("B, I am
    not sure why"); a mere "no" needs more than "I don't know" behind it. A clause with one of the phrases `kept` stays: an option
    may be "Not known".
    """
    phrases = [phrase for phrase in map(folded, kept) if states_nothing(phrase)]
    found: list[str] = []
    for clauses in sentences(text):
        lost = False
        for place, clause in enumerate(clauses):
            unknown = key("unknown").search(clause.folded)
            nothing = unknown or (not open_counts and key("undetermined").search(clause.folded))
            if nothing and not any(phrase in clause.folded for phrase in phrases):
                said = bare(clauses[0].folded) if place else None
                if not lost and place and (said is None or (unknown and said == "no")):
                    del found[len(found) - place :]
                    found += [""] * place
                lost = True
            elif lost and key("opinion").match(clause.folded):
                lost = False
            found.append("" if lost else clause.text)
    return "".join(found).strip()


def states_nothing(text: str) -> bool:
    """Whether a folded text says that the speaker does not know, or that it cannot be known."""
    return key("unknown").search(text) or key("undetermined").search(text)


def without_lead(clause: str) -> Iterator[str]:
    """A folded clause, and what is left of it when "the answer is", "I think" and the like are taken away one by one."""
    yield clause
    while clause and (length := key("lead").match(clause)):
        clause = clause[length:].strip(MARKS)
        yield clause
