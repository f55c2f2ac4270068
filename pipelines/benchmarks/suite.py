"""All that a model is asked: every benchmark of some tables, in every language, in every rotation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.benchmarks.benchmark import Benchmark, catalogue
from pipelines.benchmarks.files import Files
from pipelines.benchmarks.mapped_images import MappedImages
from pipelines.benchmarks.question import Asked
from pipelines.errors import BadInput


def load(
    tables: Iterable[Path], languages: Sequence[str] | None = None, *, scratch: Path | None = None
) -> list[Asked]:
    """Every question of the tables, by benchmark, language and rotation; in these languages, or in all there are.

    Their images lie in a file in the folder `scratch`, or in the system's temporary one; those of one benchmark in one
    language are in memory at a time.

    Raises:
        BadInput: a language is in none of the tables, a table has no benchmark, or a file is malformed.
    """
    files = Files(list(tables))
    images = MappedImages(scratch)
    asked: list[Asked] = []
    for benchmark, language in available(files):
        if languages is None or language in languages:
            questions = sorted(benchmark.questions(files, language), key=lambda one: one.rotation)
            asked += images.held(questions)
    if missing := [one for one in languages or () if all(question.language != one for question in asked)]:
        raise BadInput(
            f"no benchmark has questions in {', '.join(missing)}",
            where=", ".join(map(str, files.tables)),
            remedy=f"the tables have {', '.join(sorted({one for _, one in available(files)}))}",
        )
    if not asked:
        raise BadInput(
            "these tables hold no benchmark that is known",
            where=", ".join(map(str, files.tables)),
            remedy="a benchmark's files are named " + ", ".join(one.file for one in catalogue().values()),
        )
    return asked


def available(files: Files) -> list[tuple[Benchmark, str]]:
    """Every benchmark with a file in the tables, with each of its languages."""
    return [
        (benchmark, language)
        for benchmark in catalogue().values()
        for language in files.languages(benchmark.file)
    ]
