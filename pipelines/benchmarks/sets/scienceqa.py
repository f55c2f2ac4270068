"""ScienceQA-IMG: the test questions that have an image, with two to five options and sometimes a hint."""

from __future__ import annotations

from pipelines.benchmarks import choice
from pipelines.benchmarks.benchmark import Benchmark
from pipelines.benchmarks.profiles import lmms_eval, official

FILE = "scienceqa_{language}.tsv"

BENCHMARK = Benchmark(
    name="scienceqa",
    title="ScienceQA-IMG",
    file=FILE,
    languages=("en",),
    size=2017,
    questions=choice.questions("scienceqa", FILE),
    readers={
        **choice.readers("robust", "vlmevalkit"),
        "lmms-eval": choice.reader(lmms_eval.scienceqa_letter),
        "official": choice.reader(official.scienceqa_letter),
    },
    values=choice.plain,
    figures=("plain", "unresolved"),
)
