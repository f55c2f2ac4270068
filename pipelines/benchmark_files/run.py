"""Fetching: files, their digests and columns, the images that they name, and a reading of all of it.

What came at the first fetch is written to `frozen.json` beside the table: digest, columns or keys, and rows of every
file. A later fetch that brings anything else is refused, so that scores of two runs are of one benchmark.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.benchmark_files.spec import BenchmarkFilesSpec, Published
from pipelines.benchmark_files.translated import translate
from pipelines.benchmarks.benchmark import Benchmark, catalogue
from pipelines.benchmarks.files import IMAGES, Files
from pipelines.benchmarks.pictures import opened
from pipelines.benchmarks.question import Asked
from pipelines.errors import BadInput
from pipelines.lake.identity import file_sha256
from pipelines.lake.ledger import Ledger
from pipelines.lake.manifest import write_atomically
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work

FROZEN = "frozen.json"
BLOCK = 1 << 20


def run(spec: BenchmarkFilesSpec, work: Work, progress: Progress) -> Outcome:
    """Write the files, images.parquet where the files name images, and schema.json.

    Raises:
        BadInput: the benchmark is unknown, a file cannot be had, is not the pinned or the frozen one, names an
            image that is missing or cannot be decoded, or cannot be read as this benchmark.
    """
    benchmark = catalogue().get(spec.benchmark)
    if benchmark is None:
        raise BadInput(
            f"there is no benchmark {spec.benchmark!r}",
            where="benchmark",
            remedy=f"the benchmarks are {', '.join(catalogue())}",
        )
    progress.start("files", len(spec.files) + len(spec.urls), unit="file")
    for name, path in spec.files.items():
        shutil.copyfile(path, work.out / name)
        progress.advance()
    for name, published in spec.urls.items():
        _download(published, work.out / name)
        progress.advance()
    rejects = translate(spec, benchmark, work.out, progress)
    schema = {name: describe(work.out / name) for name in sorted([*spec.files, *spec.urls])}
    _hold_to_frozen(schema, spec.output / FROZEN)
    packed = _pack_images(spec, benchmark, work.out)
    files = Files.in_folder(work.out)
    read = {language: benchmark.questions(files, language) for language in files.languages(benchmark.file)}
    if not read:
        raise BadInput(
            f"none of the files is one of {benchmark.name}",
            where=", ".join(schema),
            remedy=f"name its files {benchmark.file}, with a language's code in it",
        )
    _check_images([one for asked in read.values() for one in asked], progress)
    (work.out / "schema.json").write_text(
        json.dumps(schema, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    write_atomically(spec.output / FROZEN, (json.dumps(schema, indent=1, ensure_ascii=False) + "\n").encode())
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


def _download(published: Published, path: Path) -> None:
    """The file at the address, whole.

    Raises:
        BadInput: it cannot be had, or is not the pinned one.
    """
    try:
        with fsspec.open(published.url, "rb") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, BLOCK)
    except (OSError, ValueError, ImportError) as error:
        raise BadInput(
            f"the file cannot be fetched: {type(error).__name__}: {error}",
            where=published.url,
            remedy="check the address and the network, or fetch it by hand and name it under `files`",
        ) from None
    found = file_sha256(path)
    if published.sha256 is not None and found != published.sha256:
        raise BadInput(
            f"the file has the digest {found}, not the pinned {published.sha256}",
            where=published.url,
            remedy="the file changed since it was pinned, or the address gives another: look at it, then pin the new digest",
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


def _hold_to_frozen(schema: dict[str, Any], path: Path) -> None:
    """Raises:
    BadInput: a file differs from what the first fetch brought.
    """
    if not path.is_file():
        return
    frozen: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
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


def _check_images(asked: Sequence[Asked], progress: Progress) -> None:
    """Raises:
    BadInput: an image cannot be decoded; better now than when a model is asked.
    """
    distinct = {one.image_sha256: one for one in asked}
    progress.start("images", len(distinct), unit="image")
    for one in distinct.values():
        opened(one)
        progress.advance()


def _pack_images(spec: BenchmarkFilesSpec, benchmark: Benchmark, out: Path) -> int:
    """Write images.parquet with every image that the files name; returns their number.

    Raises:
        BadInput: an image is missing, or lies outside of the folder.
    """
    if benchmark.image_names is None:
        return 0
    files = Files.in_folder(out)
    names = {
        name: path.name
        for language in files.languages(benchmark.file)
        for path in [files.path(benchmark.file.format(language=language))]
        for name in benchmark.image_names(path)
    }
    if spec.images is None:
        raise BadInput(
            f"{benchmark.name} names {len(names)} images, and no folder of images is given",
            where="images",
            remedy="fetch the images as the benchmark's page says, and name their folder",
        )
    missing = [name for name in names if Path(name).name != name or not (spec.images / name).is_file()]
    if missing:
        raise BadInput(
            f"{len(missing)} of {len(names)} images are missing, the first {missing[0]!r} (of {names[missing[0]]})",
            where=spec.images,
            remedy="put them into this folder, under the names that the files give",
        )
    columns = {"name": list(names), "image": [(spec.images / name).read_bytes() for name in names]}
    pq.write_table(
        pa.table(columns, pa.schema([("name", pa.string()), ("image", pa.binary())])), out / IMAGES
    )
    return len(names)
