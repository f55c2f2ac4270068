"""ScienceQA-IMG: the test questions that have an image, with two to five options and sometimes a hint.

LLaVA's script tells by the prompt which questions have an image. One without an answer has no prompt, so it leaves the
denominator of the script's IMG-Accuracy.
"""

from __future__ import annotations

from pipelines.benchmarks import choice
from pipelines.benchmarks.benchmark import LEAVES_MISSING_OUT, Benchmark
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
        **choice.readers("robust", "vlmevalkit", "parrot-2024-08"),
        "lmms-eval": choice.reader(lmms_eval.scienceqa_letter),
        "official": choice.reader(official.scienceqa_letter),
    },
    values=choice.plain,
    figures=("plain", "unresolved"),
    leaves_missing_out=LEAVES_MISSING_OUT | {"official"},
)
