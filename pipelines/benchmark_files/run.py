"""Fetching: files, their digests and columns, the images that they name, and a reading of all of it.

What came at the first fetch is written to `frozen.json` beside the table: digest, columns or keys, and rows of every
file. A later fetch that brings anything else is refused, so that scores of two runs are of one benchmark.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.benchmark_files.fetching import fetch
from pipelines.benchmark_files.images import check, pack
from pipelines.benchmark_files.spec import BenchmarkFilesSpec
from pipelines.benchmark_files.translated import translate
from pipelines.benchmarks.benchmark import Benchmark, catalogue
from pipelines.benchmarks.files import REQUESTS, Files, languages
from pipelines.errors import BadInput
from pipelines.lake import cache, location
from pipelines.lake.identity import file_sha256
from pipelines.lake.ledger import Ledger
from pipelines.lake.manifest import write_atomically
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work

FROZEN = "frozen.json"


def run(spec: BenchmarkFilesSpec, work: Work, progress: Progress) -> Outcome:
    """Write the files, images.parquet where the files name images, and schema.json.

    Raises:
        BadInput: the benchmark is unknown or reads no such file, a file cannot be had, is not the pinned or the frozen one, names an
            image that is missing or cannot be decoded, or cannot be read as this benchmark.
        Interrupted: a server failed in every attempt.
    """
    benchmark = catalogue().get(spec.benchmark)
    if benchmark is None:
        raise BadInput(
            f"there is no benchmark {spec.benchmark!r}",
            where="benchmark",
            remedy=f"the benchmarks are {', '.join(catalogue())}",
        )
    _check_names(benchmark, [*spec.files, *spec.urls])
    progress.start("files", len(spec.files) + len(spec.urls), unit="file")
    for name, path in spec.files.items():
        shutil.copyfile(cache.local(path), work.out / name)
        progress.advance()
    for name, published in spec.urls.items():
        fetch(published, work.out / name, seconds=spec.seconds)
        progress.advance()
    with _named_as_given(spec, work.out):
        return _checked(spec, benchmark, work, progress)


def _checked(spec: BenchmarkFilesSpec, benchmark: Benchmark, work: Work, progress: Progress) -> Outcome:
    """The files as fetched, translated, held to the first fetch, read and packed."""
    rejects = translate(spec, benchmark, work.out, progress)
    schema = {name: describe(work.out / name) for name in sorted([*spec.files, *spec.urls])}
    frozen = _hold_to_frozen(schema, spec.output / FROZEN)
    packed = pack(spec, benchmark, work.out)
    files = Files.in_folder(work.out)
    read = {language: benchmark.questions(files, language) for language in files.languages(benchmark.file)}
    if not read:
        raise BadInput(
            f"none of the files is one of {benchmark.name}",
            where=", ".join(schema),
            remedy=f"name its files {benchmark.file}, with a language's code in it",
        )
    if empty := [language for language, asked in read.items() if not asked]:
        raise BadInput(
            "the file has no questions",
            where=work.out / benchmark.file.format(language=empty[0]),
            remedy="fetch the file again",
        )
    if benchmark.image_names is None:  # else they were decoded one by one, as files of their own
        check([one for asked in read.values() for one in asked], progress)
    (work.out / "schema.json").write_text(
        json.dumps(schema, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    # Files that are left out today are held to what came first when they come back.
    text = json.dumps({**frozen, **schema}, indent=1, ensure_ascii=False)
    write_atomically(spec.output / FROZEN, (text + "\n").encode())
    items = {language: {one.item for one in asked} for language, asked in read.items()}
    common = set.intersection(*items.values())
    return Outcome(
        ledger=Ledger.of(kept=sum(map(len, items.values())), reasons=[]),
        metrics={
            "items": {language: len(of_one) for language, of_one in items.items()},
            "items_in_every_language": len(common),
            "published_items": benchmark.size,
            "texts_left_in_english": dict(sorted(Counter(rejects).items())),
            "images": packed,
        },
    )


@contextmanager
def _named_as_given(spec: BenchmarkFilesSpec, out: Path) -> Iterator[None]:
    """Errors name the file that was given, not its copy: what is mended in the copy is copied over by the next run.

    Raises:
        BadInput: what was raised within, of the file's own place.
    """
    try:
        yield
    except BadInput as error:
        given = {name: str(path) for name, path in spec.files.items()}
        given |= {name: published.url for name, published in spec.urls.items()}
        for name, place in given.items():
            for copy in (str(out / name), name):
                if error.where == copy or error.where.startswith(f"{copy},"):
                    known_as = "" if place.endswith(f"/{name}") else f" ({name})"
                    where = place + known_as + error.where.removeprefix(copy)
                    raise BadInput(error.what, where=where, remedy=error.remedy) from None
        raise


def _check_names(benchmark: Benchmark, names: Sequence[str]) -> None:
    """Raises:
    BadInput: a file has a name by which nothing would ever read it.
    """
    patterns = (benchmark.file, *benchmark.companions)
    unread = [
        name
        for name in names
        if name != REQUESTS and not any(languages(pattern, [name]) for pattern in patterns)
    ]
    if unread:
        raise BadInput(
            f"{benchmark.name} reads no file of the name {unread[0]!r}",
            where="files",
            remedy=f"files are named {', '.join(patterns)}, with a language's code in it, or {REQUESTS}",
        )


def describe(path: Path) -> dict[str, Any]:
    """Digest, size, and the columns of a table or the keys of a JSON file's first entry, with their number."""
    found: dict[str, Any] = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    if path.suffix == ".tsv":
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            header = stream.readline()
        found["columns"] = next(csv.reader([header], delimiter="\t"), [])
    elif path.suffix in (".json", ".jsonl"):
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            text = stream.readline() if path.suffix == ".jsonl" else stream.read()
        found["columns"] = _keys(text)
    return found


def _keys(text: str) -> list[str]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return []  # the benchmark's own reader says what is wrong, and where
    if isinstance(document, dict) and document and all(isinstance(one, dict) for one in document.values()):
        document = list(document.values())
    first = document[0] if isinstance(document, list) and document else document
    return sorted(first) if isinstance(first, dict) else []


def _hold_to_frozen(schema: dict[str, Any], path: Path) -> dict[str, Any]:
    """What the first fetches brought, by file's name; nothing before the first.

    Raises:
        BadInput: a file differs from what the first fetch brought, or what that was cannot be read.
    """
    if not location.is_file(path):
        return {}
    try:
        frozen = json.loads(location.read_bytes(path))
        if not all(isinstance(one["sha256"], str) for one in frozen.values()):
            raise TypeError("a digest is no text")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"what the first fetch brought cannot be read: {type(error).__name__}: {error}",
            where=path,
            remedy="restore the file from a copy; or delete it, and the files are held to what this fetch brings",
        ) from None
    for name, found in schema.items():
        before = frozen.get(name)
        if before is None or before["sha256"] == found["sha256"]:
            continue
        columns = ""
        if before.get("columns") != found.get("columns"):
            columns = f"; its columns were {before.get('columns')}, now {found.get('columns')}"
        raise BadInput(
            f"{name} is not the file that was fetched first: {found['sha256']}, not {before['sha256']}{columns}",
            where=path,
            remedy="compare the two; if the new one is meant, delete frozen.json, and scores before and after cannot be compared",
        )
    return {str(name): before for name, before in frozen.items()}
