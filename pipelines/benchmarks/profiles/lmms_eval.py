"""lmms-eval's rules, at commit 75571cfe (August 2026): candidates of many shapes, ranked by shape, then by place."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.benchmarks.question import LETTERS

Found = tuple[str | None, str]
OUTER_MARKS = (",", ".", "!", "?", ";", ":", "'", '"')
PHRASES = (
    *(f"{what} is" for what in ("the answer", "answer", "the correct answer", "correct answer")),
    *(f"{what} is" for what in ("the best answer", "best answer", "the correct option", "correct option")),
    *(f"{what} is" for what in ("the best option", "best option", "the choice", "choice")),
    *(f"{what} is" for what in ("the correct choice", "correct choice", "my answer", "my choice")),
    *("i choose", "i select", "i pick"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
SHAPES = (
    ("({})", "parentheses", 6),
    ("{}.", "period", 5),
    ("{}:", "colon", 4),
    ("{})", "right_paren", 3),
    ("{} ", "space", 2),
)
START, END, PHRASE = 10, 9, 7


def letter(answer: str, options: Sequence[str]) -> Found:
    """The candidate of the best shape, among these the last; the first letter where two are level."""
    return _ranked(answer, LETTERS[: len(options)])


def letter_of_four(answer: str, options: Sequence[str]) -> Found:
    """As `letter`, among A to D whatever the options: MMStar's and RealWorldQA's rule."""
    return _ranked(answer, "ABCD")


def _ranked(answer: str, letters: str) -> Found:
    bare = answer.strip()
    if not bare:
        return None, "unresolved"
    for mark in OUTER_MARKS:
        bare = bare.strip(mark)
    text = f" {bare} "
    inner = text.strip()
    found: list[tuple[int, int, str, str]] = []  # rank, place, letter, shape
    for shape, name, rank in SHAPES:
        for one in letters:
            place = text.rfind(shape.format(one))
            if place >= 0:
                found.append((rank, place, one, name))
    lowered = text.lower()
    for phrase in PHRASES:
        start = lowered.find(phrase)
        if start >= 0:
            places = [(one, text.find(one, start + len(phrase))) for one in letters]
            found += [(PHRASE, place, one, "phrase") for one, place in places if place >= 0]
    for one in letters:
        if inner.startswith(one) and not inner[1:2].isalpha():
            found.append((START, 0, one, "start"))
    for one in letters:
        if inner.endswith(one) and not inner[-2:-1].isalpha():
            found.append((END, len(text) - 1, one, "end"))
    if not found:
        found = [(0, text.rfind(one), one, "fallback") for one in letters if one in text]
    if not found:
        return None, "unresolved"
    # `max` gives the first of equals, as a stable sort from the highest down does.
    best = max(found, key=lambda one: one[:2])
    return best[2], best[3]


_MMBENCH_SHAPES = (
    *(("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ").")),
    *((":", ""), (":", ","), (":", "."), (":", ")"), (":", ").")),
)


def mmbench_letter(answer: str, options: Sequence[str]) -> Found:
    """MMBench's own matcher without a judge: a lone letter A to E as a word, in one punctuation, or one option's text;
    then `letter` among the four.
    """
    words = answer.split()
    # An option that is not there is the word "nan" to the tool.
    choices = dict.fromkeys("ABCD", "nan") | dict(zip("ABCD", options, strict=False))
    if "Failed to obtain answer via API" not in answer:
        bare = [one for one in "ABCDE" if one in words]
        if len(bare) == 1 and not ("A" in words and len(words) > 3):
            return bare[0], "letter"
        for before, after in _MMBENCH_SHAPES:
            held = [one for one in "ABCDE" if before + one + after in words]
            if len(held) == 1:
                return held[0], "letter"
    said = answer.lower()
    held = [one for one in "ABCD" if choices[one].lower() in said]
    if len(held) == 1:
        return held[0], "option_text"
    return _ranked(answer, "ABCD")


def yes_or_no(answer: str) -> Found:
    """MME's rule: the whole answer, or yes before no within its first four characters."""
    said = answer.lower().strip().replace(".", "")
    if said in ("yes", "no"):
        return said, "word"
    if len(said) == 1:
        return {"y": ("yes", "initial"), "n": ("no", "initial")}.get(said, (None, "unresolved"))
    for word in ("yes", "no"):
        if word in said[:4]:
            return word, "prefix"
    return None, "unresolved"


def scienceqa_letter(answer: str, options: Sequence[str]) -> Found:
    """The letter alone in either case, or a capital before a full stop."""
    said = answer.strip()
    if len(said) == 1 and said.upper() in LETTERS[: len(options)]:
        return said.upper(), "letter"
    if len(said) >= 2 and said[0].isupper() and said[1] == ".":
        return said[0], "label"
    return None, "unresolved"


def first_character(answer: str, options: Sequence[str]) -> Found:
    """SEED-Bench's rule: the answer's first character, whatever it belongs to."""
    said = answer.strip()[:1].upper()
    return (said, "first_character") if said in LETTERS and said else (None, "unresolved")
