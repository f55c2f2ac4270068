"""MMBench-dev in six languages: circular accuracy, over the rotations that the published files hold."""

from __future__ import annotations

from pipelines.benchmarks import choice
from pipelines.benchmarks.benchmark import Benchmark
from pipelines.benchmarks.profiles import lmms_eval

FILE = "mmbench_{language}.tsv"

BENCHMARK = Benchmark(
    name="mmbench",
    title="MMBench-dev",
    file=FILE,
    languages=("en", "zh", "pt", "ar", "tr", "ru"),
    size=1164,
    questions=choice.questions("mmbench", FILE, circular=True, kept=("l2_category",)),
    readers={
        **choice.readers("robust", "vlmevalkit", "parrot-2024-08"),
        "lmms-eval": choice.reader(lmms_eval.mmbench_letter),
    },
    values=choice.circular,
    figures=("circular", "plain", "unresolved"),
    stops=True,
)
