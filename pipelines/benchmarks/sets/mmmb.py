"""MMMB (Parrot, section 3): questions with options about fifteen abilities, in six languages.

The released code scores each row by itself ("plain"); the paper describes circular evaluation, which the
rotations made here give, and pairs of a yes and a no question about one image, which are scored where the data
has them: at least 95 % of the rows must fall into pairs, the only two yes/no questions about an image in their category.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pipelines.benchmarks import choice, lexicon
from pipelines.benchmarks.benchmark import Benchmark, Judged
from pipelines.benchmarks.files import Files
from pipelines.benchmarks.question import LETTERS, Asked
from pipelines.benchmarks.short_answers import polarity
from pipelines.benchmarks.statistics import Estimate, estimate

FILE = "mmmb_{language}.tsv"
LEAST_PAIRED = 0.95
_plain_questions = choice.questions("mmmb", FILE, circular=True)


def questions(files: Files, language: str) -> list[Asked]:
    """The rotations of every item; those of a yes/no pair carry the pair's name."""
    asked = _plain_questions(files, language)
    pairs = yes_no_pairs([one for one in asked if one.rotation == 0])
    if not pairs:
        return asked
    return [
        Asked(**{**vars(one), "details": {"pair": pairs[one.item]}}) if one.item in pairs else one
        for one in asked
    ]


def yes_no_pairs(asked: Sequence[Asked]) -> dict[str, str]:
    """Item -> pair, where at least 95 % of the items fall into pairs of a yes and a no; else nothing.

    No word of the questions is looked at, so the rule is the same in every language.
    """
    groups: dict[tuple[str, str], list[Asked]] = defaultdict(list)
    for one in asked:
        if gold_yes_no(one):
            groups[one.image_sha256, one.category].append(one)
    pairs = {
        one.item: f"{first.item}/{second.item}"
        for group in groups.values()
        if len(group) == 2
        for first, second in [group]
        if {gold_yes_no(first), gold_yes_no(second)} == {"yes", "no"}
        for one in group
    }
    return pairs if asked and len(pairs) >= LEAST_PAIRED * len(asked) else {}


def gold_yes_no(asked: Asked) -> str | None:
    """Whether the right option says yes or no, in any language: "Yes", "有", "لا يوجد", "Var"."""
    return polarity(lexicon.folded(asked.options[LETTERS.index(asked.gold)]).strip(lexicon.MARKS))


def pair_accuracy(judged: Sequence[Judged]) -> dict[str, Estimate | None]:
    """The paper's rule: both questions of a pair right. Nothing where the data has no pairs."""
    pairs: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        if "pair" in one.details:
            pairs[one.details["pair"]].append(one)
    if not pairs:
        return {}
    whole = [pair for pair in pairs.values() if len(pair) == 2]
    values = [min(one.values["plain"] for one in pair) for pair in whole]
    return {"pair": estimate(values, [pair[0].image for pair in whole])}


BENCHMARK = Benchmark(
    name="mmmb",
    title="MMMB",
    file=FILE,
    languages=("en", "zh", "pt", "ar", "tr", "ru"),
    size=2000,
    questions=questions,
    readers=choice.readers("robust", "vlmevalkit", "parrot-2024-08"),
    values=choice.circular,
    figures=("circular", "plain", "unresolved"),
    published_figure="plain",
    totals=dict.fromkeys(("robust", "vlmevalkit", "parrot-2024-08"), pair_accuracy),
    stops=True,
)
