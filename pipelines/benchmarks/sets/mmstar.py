"""MMStar: 1,500 questions with four options; VLMEvalKit's mean is over questions, lmms-eval's over the 18 abilities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pipelines.benchmarks import choice
from pipelines.benchmarks.benchmark import Benchmark, Judged
from pipelines.benchmarks.profiles import lmms_eval
from pipelines.benchmarks.statistics import Estimate, mean_of_means

FILE = "mmstar_{language}.tsv"


def mean_over_abilities(judged: Sequence[Judged]) -> dict[str, Estimate | None]:
    """lmms-eval's average: the mean of the abilities' means."""
    groups: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        groups[one.details["l2_category"]].append(one)
    return {
        "plain": mean_of_means(
            [
                ([one.values["plain"] for one in group], [one.image for one in group])
                for group in groups.values()
            ]
        )
    }


BENCHMARK = Benchmark(
    name="mmstar",
    title="MMStar",
    file=FILE,
    languages=("en",),
    size=1500,
    questions=choice.questions("mmstar", FILE, kept=("l2_category",)),
    readers={
        **choice.readers("robust", "vlmevalkit", "parrot-2024-08"),
        "lmms-eval": choice.reader(lmms_eval.letter_of_four),
    },
    values=choice.plain,
    figures=("plain", "unresolved"),
    totals={"lmms-eval": mean_over_abilities},
)
