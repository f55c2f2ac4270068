"""SEED-Bench-IMG: the questions about single images, four options."""

from __future__ import annotations

from pipelines.benchmarks import choice
from pipelines.benchmarks.benchmark import Benchmark
from pipelines.benchmarks.profiles import lmms_eval

FILE = "seedbench_{language}.tsv"

BENCHMARK = Benchmark(
    name="seedbench",
    title="SEED-Bench-IMG",
    file=FILE,
    languages=("en",),
    size=14232,
    questions=choice.questions("seedbench", FILE),
    readers={
        **choice.readers("robust", "vlmevalkit", "parrot-2024-08"),
        "lmms-eval": choice.reader(lmms_eval.first_character),
    },
    values=choice.plain,
    figures=("plain", "unresolved"),
)
