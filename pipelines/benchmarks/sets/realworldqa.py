"""RealWorldQA: photographs of streets and rooms, two to four options."""

from __future__ import annotations

from pipelines.benchmarks import choice
from pipelines.benchmarks.benchmark import Benchmark
from pipelines.benchmarks.profiles import lmms_eval

FILE = "realworldqa_{language}.tsv"

BENCHMARK = Benchmark(
    name="realworldqa",
    title="RealWorldQA",
    file=FILE,
    languages=("en",),
    size=765,
    questions=choice.questions("realworldqa", FILE),
    readers={
        **choice.readers("robust", "vlmevalkit", "parrot-2024-08"),
        "lmms-eval": choice.reader(lmms_eval.letter_of_four),
    },
    values=choice.plain,
    figures=("plain", "unresolved"),
)
