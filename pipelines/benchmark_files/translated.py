"""A benchmark put into further languages by the project's own translator, as the MpM paper does with LLaVA's test set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.benchmark_files.spec import BenchmarkFilesSpec
from pipelines.benchmarks.benchmark import Benchmark
from pipelines.benchmarks.json_files import lines
from pipelines.errors import BadInput
from pipelines.progress import Progress
from pipelines.translate.guarded import Reject, translate_all

SOURCE = "en"


def translate(spec: BenchmarkFilesSpec, benchmark: Benchmark, out: Path, progress: Progress) -> list[str]:
    """Write the files of the further languages; returns the reason of each text that stays in English.

    A text that the guard rejects is kept as it was, since a judge needs all of an item; it is counted.

    Raises:
        BadInput: the benchmark has no words that may be translated, or its English files are not there.
    """
    if not spec.translate_into or spec.translator is None:
        return []
    if not benchmark.translated:
        raise BadInput(
            f"{benchmark.name} is not to be translated",
            where="translate_into",
            remedy="take `translate_into` out: its languages are published",
        )
    from pipelines.translate.translators import stage_translator  # loads CTranslate2

    model = stage_translator(spec, spec.decoding, out.parent, progress.say)
    rows: dict[str, list[dict[str, Any]]] = {}
    for pattern, keys in benchmark.translated.items():
        path = out / pattern.format(language=SOURCE)
        if not path.is_file():
            raise BadInput(
                f"{path.name} is not there, which would be translated",
                where="files",
                remedy=f"fetch {path.name} too",
            )
        rows[pattern] = [row for _, row in lines(path, keys, lists=keys)]
    texts = [
        text for pattern, keys in benchmark.translated.items() for row in rows[pattern] for key in keys
        for text in _texts(row[key])
    ]  # fmt: skip
    reasons: list[str] = []
    for language in spec.translate_into:
        progress.start(f"into {language}", len(set(texts)), unit="text")
        found = translate_all(model, texts, SOURCE, language, spec.guard, progress.advance)
        words = {text: text if isinstance(one, Reject) else one.text for text, one in found.items()}
        reasons += [f"{language}_{one.reason.value}" for one in found.values() if isinstance(one, Reject)]
        for pattern, keys in benchmark.translated.items():
            with (out / pattern.format(language=language)).open("w", encoding="utf-8") as stream:
                for row in rows[pattern]:
                    put = {key: _put(row[key], words) for key in keys}
                    stream.write(json.dumps(row | put, ensure_ascii=False) + "\n")
    return reasons


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _put(value: Any, words: dict[str, str]) -> Any:
    return words[value] if isinstance(value, str) else [words[one] for one in value]
