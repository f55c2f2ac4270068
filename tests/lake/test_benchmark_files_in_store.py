"""Benchmark files with their table, and the files themselves, in an object store: held to what came first as on a disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.benchmark_files.spec import STAGE, BenchmarkFilesSpec, Published
from pipelines.errors import BadInput
from pipelines.lake import location
from pipelines.stage import execute
from tests.benchmarks import published


def put(folder: Path, target: Path, count: int = 6) -> None:
    published.mmmb(folder, "en", count=count)
    location.upload(folder / "mmmb_en.tsv", target)


def by_path(s3: Path) -> BenchmarkFilesSpec:
    return BenchmarkFilesSpec(output=s3 / "table", benchmark="mmmb", files={"mmmb_en.tsv": s3 / "in/a.tsv"})


def by_url(s3: Path, name: str = "a.tsv") -> BenchmarkFilesSpec:
    urls = {"mmmb_en.tsv": Published(url=location.url(s3 / "in" / name))}
    return BenchmarkFilesSpec(output=s3 / "table", benchmark="mmmb", urls=urls)


@pytest.mark.parametrize("spec", [by_path, by_url])
def test_a_file_that_changes_after_the_first_fetch_is_refused(s3: Path, tmp_path: Path, spec: object) -> None:
    assert callable(spec)
    put(tmp_path, s3 / "in/a.tsv")
    made = execute(STAGE, spec(s3))
    assert made.metrics["items"] == {"en": 6}
    frozen = location.read_bytes(s3 / "table/frozen.json")
    put(tmp_path, s3 / "in/a.tsv", count=5)
    put(tmp_path, s3 / "in/b.tsv", count=5)
    with pytest.raises(BadInput, match=r"mmmb_en\.tsv is not the file that was fetched first") as caught:
        execute(STAGE, by_path(s3) if spec is by_path else by_url(s3, "b.tsv"))
    assert caught.value.where == location.url(s3 / "table/frozen.json")
    assert location.read_bytes(s3 / "table/frozen.json") == frozen
    # Deleted on purpose, the new file is what counts from here on.
    location.remove([s3 / "table/frozen.json"])
    assert execute(STAGE, by_path(s3)).metrics["items"] == {"en": 5}


def test_a_file_that_is_left_out_for_a_while_is_still_held_to_what_came_first(
    s3: Path, tmp_path: Path
) -> None:
    put(tmp_path, s3 / "in/a.tsv")
    published.mmmb(tmp_path, "zh")
    both = by_path(s3).model_copy(
        update={"files": {"mmmb_en.tsv": s3 / "in/a.tsv", "mmmb_zh.tsv": tmp_path / "mmmb_zh.tsv"}}
    )
    execute(STAGE, both)
    execute(STAGE, by_path(s3))
    assert json.loads(location.read_bytes(s3 / "table/frozen.json")).keys() == {"mmmb_en.tsv", "mmmb_zh.tsv"}
    published.mmmb(tmp_path, "zh", count=3)
    with pytest.raises(BadInput, match="mmmb_zh"):
        execute(STAGE, both)


def test_a_damaged_record_of_what_came_first_is_named(s3: Path, tmp_path: Path) -> None:
    put(tmp_path, s3 / "in/a.tsv")
    location.write_bytes(s3 / "table/frozen.json", b'{"mmmb_en.tsv": ')
    with pytest.raises(BadInput, match="what the first fetch brought cannot be read"):
        execute(STAGE, by_path(s3))


def test_an_object_that_is_not_there_is_named(s3: Path) -> None:
    with pytest.raises(BadInput, match="cannot be fetched: FileNotFoundError") as caught:
        execute(STAGE, by_url(s3))
    assert caught.value.where == location.url(s3 / "in/a.tsv")
