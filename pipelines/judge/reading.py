"""Reading the scores out of what a judge wrote. What cannot be read is a failure, never a score."""

from __future__ import annotations

import math
import re
import unicodedata

from pipelines.judge.spec import Protocol, Reading

UNREADABLE = "unreadable_review"
OUT_OF_RANGE = "score_out_of_range"
HIGHEST: dict[Protocol, int] = {"pair": 10, "rating": 5}
_COUNT: dict[Protocol, int] = {"pair": 2, "rating": 1}
_LABEL = re.compile(
    r"(?:assistant|助手|助理|response|score|rating|评分|分数|回答)\s*[12]?\s*[:：=]", re.IGNORECASE
)
_OUT_OF = re.compile(r"(?<=\d)\s*/\s*(?:10|5)(?!\d)")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w])")
_WORD = re.compile(r"[^\W\d_]")


def scores(text: str, protocol: Protocol, reading: Reading) -> tuple[list[float], str]:
    """The scores in the order written, or [] and why there are none."""
    found = _published(text, protocol) if reading == "published" else _tolerant(text, protocol)
    if len(found) != _COUNT[protocol] or not all(map(math.isfinite, found)):
        return [], UNREADABLE
    # LLaVA's script takes any number; one that the rule does not allow says that the rule was not understood.
    if reading == "tolerant" and not all(1 <= score <= HIGHEST[protocol] for score in found):
        return [], OUT_OF_RANGE
    return found, ""


def _published(text: str, protocol: Protocol) -> list[float]:
    """As the script of LLaVA does: the first line, commas made spaces, parted at single spaces."""
    parts = text.split("\n")[0].replace(",", " ").split(" ")
    if protocol == "rating":
        parts = [text.split("\n")[0].strip()]
    try:
        return [float(part) for part in parts]
    except ValueError:
        return []


def _tolerant(text: str, protocol: Protocol) -> list[float]:
    """The first line with anything in it, in whatever dress the numbers come; no words beside them."""
    lines = [line for line in unicodedata.normalize("NFKC", text).splitlines() if line.strip()]
    if not lines:
        return []
    bare = _OUT_OF.sub(" ", _LABEL.sub(" ", re.sub(r"[*_`#\[\]()]", " ", lines[0])))
    if _WORD.search(bare):
        return []
    return [float(number) for number in _NUMBER.findall(bare)]
