"""A crawl whose lists, archives, manifest and tables lie in an object store becomes what it becomes on a disk."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
import yaml

from assets.partitions import crawl_record, record_crawl
from pipelines.conversations.table import conversations
from pipelines.crawls import CrawlManifest, read_manifest
from pipelines.download import shipping
from pipelines.download.fetched import fetched
from pipelines.download.source import Source
from pipelines.download.spec import STAGE, DownloadParameters, spec_for
from pipelines.errors import BadInput
from pipelines.lake import location, manifest
from pipelines.stage import execute
from tests.download.layouts import LAYOUTS

READY = Path(__file__).parents[2] / "recipes" / "crawls"


def put(folder: Path, into: Path) -> None:
    """Every file of a folder, into the store."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            location.upload(path, into / path.relative_to(folder))


def stored(name: str, tmp_path: Path, s3: Path) -> tuple[Path, Path]:
    """A ready manifest beside its data: on disk, and in the store."""
    folder = tmp_path / name
    folder.mkdir()
    LAYOUTS[name](folder)
    (folder / "crawl.yaml").write_bytes((READY / f"{name}.yaml").read_bytes())
    put(folder, s3 / name)
    return folder / "crawl.yaml", s3 / name / "crawl.yaml"


def digests(table: Path) -> dict[str, str]:
    return {Path(file.path).name: file.sha256 for file in manifest.read(table).files}


def captions(crawl: CrawlManifest, folder: Path) -> list[str]:
    folder.mkdir()
    return [row.text for row in Source(fetched(crawl, folder), folder).rows() if row.failure is None]


@pytest.mark.parametrize("name", ["llava-instruct-150k", "m3it-en", "unimm-chat", "coco-captions"])
def test_a_corpus_in_the_store_gives_the_bytes_that_it_gives_on_a_disk(
    name: str, s3: Path, tmp_path: Path
) -> None:
    here, there = stored(name, tmp_path, s3)
    on_disk = spec_for(here, DownloadParameters(rows_per_shard=2), tmp_path / "table", workers=1)
    in_store = spec_for(there, DownloadParameters(rows_per_shard=2), s3 / "table", workers=1)
    made = execute(STAGE, on_disk)
    assert execute(STAGE, in_store).rows == made.rows
    assert digests(s3 / "table") == digests(tmp_path / "table")
    if name == "llava-instruct-150k":
        assert list(conversations(s3 / "table")) == list(conversations(tmp_path / "table"))


def test_lists_of_urls_are_read_in_the_order_of_their_numbers(s3: Path, tmp_path: Path) -> None:
    for number in (10, 2, 0):
        rows = f"url,caption\nhttp://a.example/{number}.jpg,caption {number}\n"
        location.write_bytes(s3 / f"lists/part_{number}.csv.gz", gzip.compress(rows.encode()))
    location.write_bytes(s3 / "lists/deeper/part_5.csv.gz", b"not of this folder")
    document: dict[str, Any] = {"crawl": "lists", "language": "en", "format": "csv", "files": [f"{location.url(s3)}/lists/part_*.csv.gz"]}  # fmt: skip
    crawl = tmp_path / "crawl.yaml"
    crawl.write_text(yaml.safe_dump(document))
    read = read_manifest(crawl)
    assert [path.name for path in read.files] == [f"part_{number}.csv.gz" for number in (0, 2, 10)]
    assert captions(read, tmp_path / "a") == ["caption 0", "caption 2", "caption 10"]

    # As it is when it was registered, in a workspace on a disk or in the store; and with a root.
    for workspace in (tmp_path / "workspace", s3 / "workspace"):
        record_crawl(read, workspace)
        again = read_manifest(crawl_record(workspace, "lists"))
        assert again.files == read.files
    crawl.write_text(yaml.safe_dump({**document, "root": location.url(s3), "files": ["lists/part_?.csv.gz"]}))
    assert captions(read_manifest(crawl), tmp_path / "b") == ["caption 0", "caption 2"]


def test_a_changed_object_is_a_changed_list_and_a_missing_one_is_named(s3: Path, tmp_path: Path) -> None:
    _, crawl = stored("llava-1-5-pretrain", tmp_path, s3)
    spec = spec_for(crawl, DownloadParameters(), tmp_path / "table", workers=1)
    assert execute(STAGE, spec).rows == 2
    (listed,) = spec.files
    text = location.read_bytes(listed)
    location.write_bytes(listed, text.replace(b"caption of 004539375", b"another caption"))
    made = execute(STAGE, spec)
    assert made.rows == 2 and made.created
    location.remove([listed])
    with pytest.raises(BadInput, match=r"s3://bucket/.*blip_laion_cc_sbu_558k.json does not exist") as caught:
        read_manifest(crawl)
    assert "LLaVA-Pretrain" in caught.value.remedy


def test_a_folder_of_images_in_the_store_is_refused_with_what_to_do(s3: Path, tmp_path: Path) -> None:
    _, crawl = stored("llava-1-5-finetune", tmp_path, s3)
    with pytest.raises(BadInput, match="folder of images in an object store") as caught:
        read_manifest(crawl)
    assert "zip or tar" in caught.value.remedy


def test_whole_shards_leave_the_disk_while_others_are_made_and_are_not_made_again(
    s3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = stored("m3it-en", tmp_path, s3)
    parameters = DownloadParameters(rows_per_shard=3)
    execute(STAGE, spec_for(here, parameters, tmp_path / "table", workers=1))
    spec = spec_for(here, parameters, s3 / "table", workers=1)
    ship = shipping.Shipping.ship
    shipped: list[int] = []

    class Killed(BaseException):
        pass

    def killed(self: shipping.Shipping, record: Any) -> None:
        ship(self, record)
        for upload in self._uploads:
            upload.result()
        shipped.append(record.shard)
        assert not (self._work.out / f"shard-{record.shard:05d}.tar").exists()
        if len(shipped) == 2:
            raise Killed

    monkeypatch.setattr(shipping.Shipping, "ship", killed)
    with pytest.raises(Killed):
        execute(STAGE, spec)
    assert not manifest.exists(spec.output)
    monkeypatch.setattr(shipping.Shipping, "ship", ship)
    made = execute(STAGE, spec)
    assert (made.metrics["shards"], made.metrics["shards_reused"]) == (3, 2)
    assert digests(s3 / "table") == digests(tmp_path / "table")
    again = spec_for(here, parameters.model_copy(update={"attempt": 1}), s3 / "table", workers=1)
    assert execute(STAGE, again).metrics["rows_carried"] == made.rows
    assert digests(s3 / "table") == digests(tmp_path / "table")
