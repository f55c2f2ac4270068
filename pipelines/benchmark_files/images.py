"""The images that a benchmark's files name, in a folder that may hold many more; and whether each can be decoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.benchmark_files.spec import BenchmarkFilesSpec
from pipelines.benchmarks.benchmark import Benchmark, catalogue
from pipelines.benchmarks.files import IMAGES, Files, languages
from pipelines.benchmarks.pictures import decoded, opened
from pipelines.benchmarks.question import Asked
from pipelines.errors import BadInput
from pipelines.lake import cache
from pipelines.progress import Progress


def named_images(spec: BenchmarkFilesSpec) -> list[str] | None:
    """The images that the files on this machine name; None where a file that names some is still to be fetched.

    Raises:
        BadInput: a file is malformed.
    """
    benchmark = catalogue().get(spec.benchmark)
    if benchmark is None or languages(benchmark.file, spec.urls):
        return None
    if benchmark.image_names is None:
        return []
    asking = [benchmark.file.format(language=language) for language in languages(benchmark.file, spec.files)]
    names = {name for file in asking for name in benchmark.image_names(cache.local(spec.files[file]))}
    return sorted(name for name in names if Path(name).name == name)


def check(asked: Sequence[Asked], progress: Progress) -> None:
    """Raises:
    BadInput: an image cannot be decoded; better now than when a model is asked.
    """
    distinct = {one.image_sha256: one for one in asked}
    progress.start("images", len(distinct), unit="image")
    for one in distinct.values():
        opened(one)
        progress.advance()


def pack(spec: BenchmarkFilesSpec, benchmark: Benchmark, out: Path) -> int:
    """Write images.parquet with every image that the files name; returns their number.

    Raises:
        BadInput: an image is missing, lies outside of the folder, or cannot be decoded.
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
    contents = []
    for name, file in names.items():
        contents.append((spec.images / name).read_bytes())
        decoded(
            contents[-1],
            where=f"{spec.images / name} (of {file})",
            remedy="fetch this image again; if it is as published, take its items out",
        )
    columns = {"name": list(names), "image": contents}
    pq.write_table(
        pa.table(columns, pa.schema([("name", pa.string()), ("image", pa.binary())])), out / IMAGES
    )
    return len(names)
