"""Answers of a word or two, in many languages: yes or no, true or false or unclear, short phrases. Never a guess.

What says that the speaker does not know, or cannot see, is no answer, whatever words it holds. The words stand in
`lexicon.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from pipelines.benchmarks import lexicon
from pipelines.benchmarks.benchmark import Reader, Reading
from pipelines.benchmarks.lexicon import MARKS, key
from pipelines.benchmarks.question import Asked

Extractor = Callable[[str, Asked], tuple[str | None, str]]
Found = tuple[str | None, str]
UNRESOLVED: Found = (None, "unresolved")
_ARTICLE = re.compile(r"^(?:a|an|the)\s+")
_ALTERNATIVES = re.compile(r"\s*[/|]\s*")
_DENIAL_OF = {"true": "false", "false": "true"}


def word_reader(extract: Extractor) -> Reader:
    """A reader from what finds a word in an answer: right where it is the gold."""

    def read(asked: Asked, answer: str) -> Reading:
        said, how = extract(answer, asked)
        return Reading(said, how, said == asked.gold)

    return read


def polarity(clause: str) -> str | None:
    """Yes or no if the folded clause is nothing else ("yes", "there isn't"), or begins with it as only an answer does."""
    for rest in lexicon.without_lead(clause):
        for said in ("yes", "no"):
            if key(said).fullmatch(rest):
                return said
        for said in ("yes", "no"):
            if key(f"{said}_first").match(rest) and not key("not_only").match(rest):
                return said
    return None


def yes_or_no(answer: str, _: Asked | None = None) -> Found:
    """Yes or no: by the first clause, else by the only one that clauses say, else by a denial ("there is no dog"), else
    by a word that means nothing else. "No idea" and "yes or no" are neither.
    """
    text = lexicon.stated(lexicon.normalised(answer), polarity)
    clauses = [clause.folded for sentence in lexicon.sentences(text) for clause in sentence if clause.folded]
    if not clauses or any(_offers_both(clause) for clause in clauses):
        return UNRESOLVED
    if said := polarity(clauses[0]):
        return said, "first_clause"
    found = {said for clause in clauses if (said := polarity(clause))}
    if found:
        return (found.pop(), "clause") if len(found) == 1 else UNRESOLVED
    # "It is not only a dog" says yes to one question and no to another.
    if any(key("denies").search(clause) and not key("not_only").search(clause) for clause in clauses):
        return "no", "denial"
    strong = {said for said in ("yes", "no") for clause in clauses if key(f"strong_{said}").search(clause)}
    words = {word for clause in clauses for word in clause.split() if len(word) > 1}
    named = strong | {said for said in ("yes", "no") for word in words if key(said).fullmatch(word)}
    return (strong.pop(), "word") if len(named) == len(strong) == 1 else UNRESOLVED


def _offers_both(clause: str) -> bool:
    """Whether the clause names yes and no beside each other: "yes or no", "yes/no"."""
    if any(key(said).fullmatch(clause) for said in ("yes", "no")):
        return False
    parts = [part.strip(MARKS) for half in _ALTERNATIVES.split(clause) for part in _parted(half)]
    return {said for part in parts if (said := polarity(part))} == {"yes", "no"}


def _parted(clause: str) -> Iterator[str]:
    start = 0
    for begin, end in sorted(key("either").spans(clause)):
        if begin >= start:
            yield clause[start:begin]
            start = end
    yield clause[start:]


def truth(answer: str) -> Found:
    """ "true", "unclear" or "false": what an answer says of a statement, denials turned round.

    What leaves the statement open ("it cannot be determined") is unclear; what the speaker does not know is nothing.
    """
    text = lexicon.stated(lexicon.normalised(answer), _whole_truth, open_counts=True)
    sentences = [
        [clause.folded for clause in sentence if clause.folded] for sentence in lexicon.sentences(text)
    ]
    sentences = [clauses for clauses in sentences if clauses]
    if sentences and (said := _whole_truth(sentences[0][0])):
        return said, "first_clause"
    for explained in (False, True):
        found: set[str] = set()
        for clauses in sentences:
            found |= _truths(clauses, explained=explained)
        if found:
            return (found.pop(), "word") if len(found) == 1 else UNRESOLVED
    return UNRESOLVED


def _whole_truth(clause: str) -> str | None:
    """The one of the three that a folded clause is, if it is nothing else."""
    for rest in lexicon.without_lead(clause):
        for said in ("unclear", "false", "true"):
            if key(said).fullmatch(rest) or (said == "true" and key("true_alone").fullmatch(rest)):
                return said
        if key("undetermined").fullmatch(rest):
            return "unclear"
    return None


def _truths(clauses: Sequence[str], *, explained: bool) -> set[str]:
    """What a sentence says, its reasons left out unless `explained`; what follows "it is unclear" is what is unclear."""
    found: set[str] = set()
    for clause in clauses:
        if not explained and key("reason").match(clause):
            continue
        spans = [
            (start, end, said)
            for name, said in (
                ("unclear", "unclear"),
                ("undetermined", "unclear"),
                ("false", "false"),
                ("true", "true"),
            )
            for start, end in key(name).spans(clause)
        ]
        whole = sorted(
            (start, end, said)
            for start, end, said in spans
            if not any(a <= start and end <= b and b - a > end - start for a, b, _ in spans)
        )
        for start, end, said in whole:
            if said in _DENIAL_OF and lexicon.denied(clause[:start], clause[end:]):
                said = _DENIAL_OF[said]
            if said == "unclear":
                return found | {said}
            found.add(said)
    return found


def normalised_phrase(answer: str) -> str:
    """The first line, in lower case, without outer punctuation and a leading English article."""
    lines = lexicon.normalised(answer).casefold().splitlines()
    text = lines[0].strip(" \t.,;:!?\"'()[]。，！？、") if lines else ""
    return _ARTICLE.sub("", text)
