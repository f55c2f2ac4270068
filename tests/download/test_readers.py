"""Each format where its files are odd or damaged: rows counted with their reasons, files named with a remedy."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from assets.partitions import record_crawl
from pipelines.crawls import CrawlManifest, read_manifest
from pipelines.download.readers import streams
from pipelines.download.rows import Row
from pipelines.download.spec import STAGE, spec_for
from pipelines.errors import BadInput
from pipelines.stage import fingerprint, input_versions
from tests.download.conftest import limits
from tests.download.hostile_server import picture
from tests.download.layouts import LAYOUTS, archive, dump, said, tar
from tests.download.made import made, scanned
from tests.download.test_ready_manifests import READY, ready


def crawl(folder: Path, **keys: object) -> CrawlManifest:
    (folder / "crawl.yaml").write_text(yaml.safe_dump({"crawl": "test", "language": "en", **keys}))
    return read_manifest(folder / "crawl.yaml")


def reasons(rows: list[Row]) -> dict[str, int]:
    return dict(Counter(row.failure.reason.value for row in rows if row.failure))


def details(rows: list[Row]) -> list[str]:
    return [row.failure.detail for row in rows if row.failure]


def test_csv_keeps_quotes_commas_line_breaks_and_odd_bytes_in_their_rows(tmp_path: Path) -> None:
    content = (
        b'\xef\xbb\xbfurl,caption\r\nhttp://a/1.jpg,"a ""cat"", on\r\na mat"\r\nhttp://a/2.jpg,caf\xe9\r\n'
        b'\r\nhttp://a/3.jpg,nul \0 here\r\nhttp://a/4.jpg\r\nhttp://a/5.jpg,"open, and ' + b"x" * 140_000 + b'\r\n'
    )  # fmt: skip
    (tmp_path / "list.csv").write_bytes(content)
    rows = scanned(crawl(tmp_path, format="csv", files=["list.csv"]), tmp_path)
    assert [row.text for row in rows if row.failure is None] == ['a "cat", on a mat']
    found = reasons(rows)
    assert found["caption_encoding"] == found["caption_control_characters"] == 1
    assert found["row_malformed"] >= 2
    assert "list.csv line 7: 1 fields, not 2" in details(rows)


def test_packed_lists_are_unpacked_and_cut_ones_named(tmp_path: Path) -> None:
    packed = gzip.compress(b"url\tcaption\nhttp://a/1.jpg\ta cat\n")
    (tmp_path / "list.tsv.gz").write_bytes(packed)
    manifest = crawl(tmp_path, format="tsv", files=["list.tsv.gz"])
    assert [row.text for row in scanned(manifest, tmp_path)] == ["a cat"]
    (tmp_path / "list.tsv.gz").write_bytes(packed[:-12])
    with pytest.raises(BadInput, match="cannot be read to its end"):
        scanned(manifest, tmp_path)


@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_a_missing_column_is_named_beside_those_of_the_first_line(tmp_path: Path, form: str) -> None:
    (tmp_path / "list").write_text("http://a/1.jpg,\ta cat\n")
    with pytest.raises(BadInput, match="no column 'url'") as caught:
        scanned(crawl(tmp_path, format=form, files=["list"]), tmp_path)
    assert "header" in caught.value.remedy


def test_lines_of_json_that_are_none_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", 1000)
    lines = [
        b'{"url": "http://a/1.jpg", "caption": "a cat"}', b"", b"[1]", b"{", b'{"url": null, "caption": "b"}',
        b'{"url": "http://a/2.jpg", "caption": {"a": 1}}', b'{"a": "' + b"x" * 5000 + b'"}', b"[" * 900,
        b'{"url": "http://a/3.jpg", "caption": "\\ud800"}', b'{"url": "http://a/4.jpg", "caption": "last"}',
    ]  # fmt: skip
    (tmp_path / "list.jsonl").write_bytes(b"\n".join(lines))
    rows = scanned(crawl(tmp_path, format="jsonl", files=["list.jsonl"]), tmp_path)
    assert [row.text for row in rows if row.failure is None] == ["a cat", "last"]
    assert reasons(rows) == {"row_malformed": 4, "url_empty": 1, "caption_empty": 1, "caption_encoding": 1}
    assert "list.jsonl line 7: 5010 bytes in one line" in details(rows)


@pytest.mark.parametrize("name", ["coco-captions", "visual-genome", "llava-instruct-150k"])
def test_json_that_was_cut_is_named_with_a_remedy(name: str, tmp_path: Path) -> None:
    manifest = ready(name, tmp_path)
    path = manifest.files[0]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadInput, match="not whole JSON") as caught:
        scanned(manifest, tmp_path)
    assert caught.value.where == str(path)


def test_a_json_file_of_another_kind_is_no_coco(tmp_path: Path) -> None:
    dump(tmp_path / "other.json", {"annotations": []})
    with pytest.raises(BadInput, match="no `images`"):
        scanned(crawl(tmp_path, format="coco", files=["other.json"]), tmp_path)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "conversation_malformed"),
        ([], "conversation_malformed"),
        (said("What?"), "conversation_malformed"),
        (said("What?", "A cat.", "And?"), "conversation_malformed"),
        ([*said("What?"), *said("Again?")], "conversation_malformed"),
        ([{"from": "human", "value": 3}, *said("a")], "conversation_malformed"),
        (said("<image>", "A cat."), "conversation_empty_turn"),
        (said("<image>\nWhat?", " "), "conversation_empty_turn"),
        (said("<image>\nWhat?", "a\0b"), "caption_control_characters"),
    ],
)
def test_a_conversation_that_is_none_has_its_reason(tmp_path: Path, messages: object, reason: str) -> None:
    dump(tmp_path / "talks.json", [{"image": "1.jpg", "conversations": messages}])
    images = {"url_prefix": "http://a.example/"}
    rows = scanned(crawl(tmp_path, format="llava", files=["talks.json"], images=images), tmp_path)
    assert reasons(rows) == {reason: 1}


def test_a_conversation_keeps_line_breaks_system_words_leave_and_images_come_by_url(tmp_path: Path) -> None:
    messages = [{"from": "system", "value": "Be kind."}, *said("Write:\n\tcode\\begin <image>", "a\nb")]
    lines = [
        json.dumps({"image": "a b/1.jpg", "conversations": messages}),
        json.dumps({"conversations": said("<image>?", "a")}),
    ]
    (tmp_path / "talks.jsonl").write_text("\n".join(lines))
    images = {"url_prefix": "http://a.example/", "prefix": "train/"}
    kept, dropped = scanned(crawl(tmp_path, format="llava", files=["talks.jsonl"], images=images), tmp_path)
    assert (kept.url, kept.failure) == ("http://a.example/train/a%20b/1.jpg", None)
    assert json.loads(kept.text) == [["Write:\n\tcode\\begin", "a\nb"]]
    assert dropped.failure is not None
    assert dropped.failure.reason == "image_missing"


def test_webdataset_samples_keep_their_caption_and_address(tmp_path: Path) -> None:
    sample = picture(1)
    tar(
        tmp_path / "00000.tar",
        {
            "000000000.jpg": sample, "000000000.txt": b"a cat", "000000000.json": b'{"url": "http://a/1.jpg"}',
            "000000001.txt": b"no image", "000000002.png": picture(2, kind="PNG"), "sub/000000003.jpg": sample,
            "sub/000000003.txt": "一只猫".encode(), "000000004.jpg": sample, "000000004.txt": b"x", "000000004.json": b"{",
            "000000005.cls": b"3",
        },
    )  # fmt: skip
    table = made(crawl(tmp_path, format="webdataset", files=["*.tar"]), tmp_path / "work")
    assert [(row["caption"], row["url"]) for row in table.rows] == [
        ("a cat", "http://a/1.jpg"), ("一只猫", "local://test/00000.tar/sub/000000003"),
    ]  # fmt: skip
    assert table.image(table.rows[0]) == sample
    assert table.reasons == {"image_missing": 2, "caption_empty": 1, "row_malformed": 1}


def test_a_caption_may_stand_in_the_samples_json(tmp_path: Path) -> None:
    described = json.dumps({"top_caption": "a dog", "other": 1}).encode()
    tar(tmp_path / "a.tar", {"1.jpg": picture(1), "1.json": described, "2.jpg": picture(2), "2.json": b"{}"})
    manifest = crawl(tmp_path, format="webdataset", files=["a.tar"], columns={"caption": "json:top_caption"})
    table = made(manifest, tmp_path / "work")
    assert ([row["caption"] for row in table.rows], table.reasons) == (["a dog"], {"caption_empty": 1})


@pytest.mark.parametrize("left", [100, 700, 2500])
def test_a_tar_that_was_cut_is_named_with_a_remedy(tmp_path: Path, left: int) -> None:
    tar(tmp_path / "a.tar", {f"{at}.{kind}": picture(at) for at in range(3) for kind in ("jpg", "txt")})
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:left])
    with pytest.raises(BadInput, match="tar"):
        scanned(crawl(tmp_path, format="webdataset", files=["a.tar"]), tmp_path)


def test_a_folder_pairs_images_with_the_captions_beside_them(tmp_path: Path) -> None:
    for name in ("data/b/2.JPG", "data/a/1.png", "data/b/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture(len(name)))
    (tmp_path / "data/a/1.txt").write_text("a cat\n")
    (tmp_path / "data/b/2.txt").write_text("a dog")
    (tmp_path / "data/b/4.txt").write_text("nothing to see")
    (tmp_path / "data/b/notes.md").write_text("not data")
    table = made(crawl(tmp_path, format="folder", files=["data"]), tmp_path / "work")
    assert [(row["caption"], row["url"]) for row in table.rows] == [
        ("a cat", "local://test/data/a/1.png"), ("a dog", "local://test/data/b/2.JPG"),
    ]  # fmt: skip
    assert table.reasons == {"caption_empty": 1, "image_missing": 1}


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "..\\secret.jpg", "link.jpg"]
)
def test_a_name_in_annotations_leads_nowhere_but_into_the_images_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "images/a").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(picture(1))
    (tmp_path / "images/link.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "list.csv").write_text(f"url,caption\n{name},a cat\n")
    manifest = crawl(tmp_path, format="csv", files=["list.csv"], images={"files": ["images"]})
    assert made(manifest, tmp_path / "work").reasons == {"image_name_refused": 1}


def test_images_are_found_in_the_first_place_that_has_them(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/1.jpg").write_bytes(picture(11))
    archive(tmp_path / "images.zip", ["1.jpg", "2.jpg"], compression=zipfile.ZIP_DEFLATED)
    tar(tmp_path / "images.tar", {"./3.jpg": picture(3), "2.jpg": picture(9)})
    (tmp_path / "list.csv").write_text("url,caption\n1.jpg,a\n2.jpg,b\n3.jpg,c\n4.jpg,d\n")
    places = {"files": ["folder", "images.zip", "images.tar"]}
    table = made(crawl(tmp_path, format="csv", files=["list.csv"], images=places), tmp_path / "work")
    assert [table.image(row) for row in table.rows] == [picture(11), picture(1), picture(3)]
    assert table.reasons == {"image_missing": 1}


def test_a_damaged_member_costs_its_row_and_a_damaged_archive_the_run(tmp_path: Path) -> None:
    archive(tmp_path / "images.zip", ["1.jpg", "2.jpg"], compression=zipfile.ZIP_DEFLATED)
    (tmp_path / "list.csv").write_text("url,caption\n1.jpg,a\n2.jpg,b\n")
    manifest = crawl(tmp_path, format="csv", files=["list.csv"], images={"files": ["images.zip"]})
    content = bytearray((tmp_path / "images.zip").read_bytes())
    content[200:260] = bytes(60)
    (tmp_path / "images.zip").write_bytes(bytes(content))
    assert len(made(manifest, tmp_path / "work").rows) == 1
    (tmp_path / "images.zip").write_bytes(bytes(content[:-100]))
    with pytest.raises(BadInput, match="no whole zip or plain tar"):
        made(manifest, tmp_path / "again")


def test_an_archive_that_lies_about_a_size_is_held_to_the_limit(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("bomb.jpg", bytes(5_000_000))
    content = (tmp_path / "images.zip").read_bytes()
    size = (5_000_000).to_bytes(4, "little")
    (tmp_path / "images.zip").write_bytes(content.replace(size, (1000).to_bytes(4, "little")))
    (tmp_path / "list.csv").write_text("url,caption\nbomb.jpg,a\n")
    manifest = crawl(tmp_path, format="csv", files=["list.csv"], images={"files": ["images.zip"]})
    assert made(manifest, tmp_path / "work").reasons == {"image_unreadable": 1}


def test_base64_that_is_none_and_images_beyond_the_limit_are_counted(tmp_path: Path) -> None:
    rows = [{"instruction": "What?", "inputs": "", "outputs": f"a{at}"} for at in range(4)]
    rows[0]["image_base64_str"] = "no base64!"
    rows[1]["image_base64_str"] = base64.b64encode(bytes(400_000)).decode()
    rows[2]["image_base64_str"] = "data:image/jpeg;base64," + base64.b64encode(picture(1)).decode()
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = made(crawl(tmp_path, format="m3it", files=["train.jsonl"]), tmp_path / "work")
    assert [row["turns"][0]["answer"] for row in table.rows] == ["a2"]
    assert table.reasons == {"image_unreadable": 1, "too_large": 1, "image_missing": 1}


def test_a_pair_without_an_image_is_counted_as_one_whose_image_is_missing(tmp_path: Path) -> None:
    entries = [
        {"image": "1.jpg", "conversations": said("<image>\nWhat?", "A cat.")},
        {"conversations": said("What?", "No picture at all.")},
        {"image": "", "conversations": said("<image>\nWhat?", "A picture without a name.")},
    ]
    dump(tmp_path / "talks.json", entries)
    archive(tmp_path / "images.zip", ["1.jpg"])
    manifest = crawl(
        tmp_path, format="llava", records="pairs", files=["talks.json"], images={"files": ["images.zip"]}
    )
    table = made(manifest, tmp_path / "work")
    assert [(row["caption"], row["shard"]) for row in table.rows] == [("A cat.", "shard-00000.tar")]
    assert table.reasons == {"image_missing": 2}


def test_samples_of_one_name_are_not_mixed(tmp_path: Path) -> None:
    members = [
        ("a.jpg", picture(1)), ("a.txt", b"first"), ("a.jpg", picture(2)), ("a.txt", b"second"), ("a.JPG", picture(3)),
        ("b.jpg", picture(4)), ("b.txt", b"another"), ("a.jpg", picture(5)), ("a.txt", b"later"),
    ]  # fmt: skip
    with tarfile.open(tmp_path / "0.tar", "w") as target:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            target.addfile(info, io.BytesIO(content))
    table = made(crawl(tmp_path, format="webdataset", files=["0.tar"]), tmp_path / "work")
    assert [(row["caption"], table.image(row)) for row in table.rows] == [
        ("first", picture(1)), ("another", picture(4)), ("later", picture(5)),
    ]  # fmt: skip
    assert table.reasons == {"row_malformed": 2}


def test_changed_instructions_of_m3it_are_a_changed_input(tmp_path: Path) -> None:
    ready("m3it-en", tmp_path)
    spec = spec_for(tmp_path / "m3it-en.yaml", limits(80), tmp_path / "table")
    before = fingerprint(STAGE, spec, input_versions(spec))
    assert len(spec.beside) == 8
    dump(spec.beside[0], ["What is this?"])
    assert fingerprint(STAGE, spec, input_versions(spec)) != before


def test_a_parquet_file_without_its_images_is_refused(tmp_path: Path) -> None:
    columns = {"conversation": ["[]"], "image_path": ["a"], "image": ["not bytes"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    manifest = crawl(
        tmp_path, format="unimm_chat", files=["a.parquet"], columns={"conversation": "conversation"}
    )
    with pytest.raises(BadInput, match="holds no images"):
        scanned(manifest, tmp_path)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"format": "llava"}, "where they are"),
        ({"format": "csv", "records": "conversations"}, "needs a format of"),
        ({"header": ["a"]}, "csv and tsv"),
        ({"format": "m3it", "images": {"url_prefix": "http://a/"}}, "leave `images` out"),
        ({"images": {}}, "url_prefix"),
        ({"captions_per_image": 2}, "coco and visual_genome"),
        ({"format": "visual_genome"}, "two files"),
        ({"format": "excel"}, "format"),
        ({"format": "folder"}, "no folder"),
        ({"images": {"files": ["gone.zip"]}}, "do not exist"),
        ({"root": "elsewhere"}, "does not exist"),
        ({"files": ["*.csv"]}, "does not exist"),
    ],
)
def test_a_manifest_whose_parts_do_not_agree_is_refused(
    tmp_path: Path, keys: dict[str, object], words: str
) -> None:
    (tmp_path / "list").write_bytes(b"")
    with pytest.raises(BadInput, match=words):
        crawl(tmp_path, **{"files": ["list"], **keys})


def test_data_may_lie_elsewhere_than_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    LAYOUTS["llava-1-5-pretrain"](tmp_path / "data")
    text = (READY / "llava-1-5-pretrain.yaml").read_text() + "root: data\n"
    (tmp_path / "crawl.yaml").write_text(text)
    assert len(made(read_manifest(tmp_path / "crawl.yaml"), tmp_path / "work").rows) == 2


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_registered_manifest_leads_to_the_same_data(name: str, tmp_path: Path) -> None:
    manifest = ready(name, tmp_path)
    assert read_manifest(record_crawl(manifest, tmp_path / "workspace")) == manifest


def test_shards_cut_anywhere_hold_the_same_rows(tmp_path: Path) -> None:
    manifest = ready("coco-captions", tmp_path)
    whole = made(manifest, tmp_path / "whole")
    cut = made(manifest, tmp_path / "cut", rows_per_shard=2)
    assert [row["uid"] for row in cut.rows] == [row["uid"] for row in whole.rows]
    assert cut.reasons == whole.reasons
