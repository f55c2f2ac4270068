"""Every ready manifest reads its corpus in the true layout: what is kept, what is dropped and why."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from pipelines.crawls import CrawlManifest, read_manifest
from pipelines.errors import BadInput
from tests.download.layouts import LAYOUTS
from tests.download.made import Made, made, scanned

READY = Path(__file__).parents[2] / "recipes" / "crawls"
ON_THE_WEB = {
    "cc3m": (["a \"quoted\" word , and more", "a tree"], {"row_malformed": 1}),
    "cc12m": (["\"Open quote, <PERSON>", "b"], {"row_malformed": 1}),
    "laion-2b-en": (["one", "two"], {"url_empty": 1}),
    "laion-coco": (["a cat on a mat", "a dog"], {"url_scheme": 1}),
    "wukong": (["一只猫, 在垫子上", "树", "狗"], {"row_malformed": 1}),
    "zero": (["一只猫", "狗"], {"row_malformed": 1}),
}  # fmt: skip
"""Name -> captions that go on, and reasons before anything is fetched."""
ON_DISK = {
    "coco-captions": (4, {"image_missing": 2, "row_malformed": 1}),
    "visual-genome": (9, {}),
    "llava-instruct-150k": (2, {"conversation_malformed": 1}),
    "llava-1-5-pretrain": (2, {"conversation_malformed": 1}),
    "llava-1-5-finetune": (2, {"image_missing": 1}),
    "unimm-chat": (2, {"conversation_malformed": 1}),
    "m3it-en": (8, {"several_images": 1}),
    "parrot-laion-caption": (2, {"image_missing": 1}),
    "parrot-cc12m-caption": (2, {"image_missing": 1}),
    **{
        f"sharegpt4v-{language}": (2, {"image_name_refused": 1})
        for language in ("zh", "pt", "ar", "tr", "ru")
    },
}
"""Name -> rows kept, and reasons."""


def ready(name: str, folder: Path) -> CrawlManifest:
    """The ready manifest beside its data."""
    LAYOUTS[name](folder)
    shutil.copy(READY / f"{name}.yaml", folder)
    return read_manifest(folder / f"{name}.yaml")


def loaded(name: str, folder: Path) -> Made:
    return made(ready(name, folder), folder / "work")


def test_every_ready_manifest_is_tested_and_says_where_its_data_comes_from() -> None:
    names = {path.stem for path in READY.glob("*.yaml")}
    assert names == set(LAYOUTS) == set(ON_THE_WEB) | set(ON_DISK)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_ready_manifest_has_name_license_source_and_citation(name: str, tmp_path: Path) -> None:
    manifest = ready(name, tmp_path)
    assert manifest.crawl == name
    assert manifest.license != "unknown"
    assert manifest.source.startswith("https://")
    assert manifest.citation


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_without_its_data_a_ready_manifest_says_what_is_missing_and_where_to_get_it(
    name: str, tmp_path: Path
) -> None:
    shutil.copy(READY / f"{name}.yaml", tmp_path)
    with pytest.raises(BadInput, match="does not exist") as caught:
        read_manifest(tmp_path / f"{name}.yaml")
    assert "https://" in caught.value.remedy


@pytest.mark.parametrize("name", sorted(ON_THE_WEB))
def test_a_list_of_urls_is_read_row_by_row(name: str, tmp_path: Path) -> None:
    captions, reasons = ON_THE_WEB[name]
    rows = scanned(ready(name, tmp_path), tmp_path)
    assert [row.text for row in rows if row.failure is None] == captions
    assert Counter(row.failure.reason.value for row in rows if row.failure) == reasons
    assert all(row.url.startswith("http") and row.image.kind == "web" for row in rows if row.failure is None)


@pytest.mark.parametrize("name", sorted(ON_DISK))
def test_a_corpus_on_disk_becomes_a_table(name: str, tmp_path: Path) -> None:
    kept, reasons = ON_DISK[name]
    table = loaded(name, tmp_path)
    assert (len(table.rows), table.reasons) == (kept, reasons)
    for row in table.rows:
        assert row["shard"] is None or table.image(row)


def test_captions_of_one_image_share_its_bytes_and_keep_its_address(tmp_path: Path) -> None:
    table = loaded("coco-captions", tmp_path)
    assert [row["caption"] for row in table.rows] == [
        "Caption 0 of 9.", "Caption 1 of 9.", "Caption 0 of 25.", "Caption 1 of 25.",
    ]  # fmt: skip
    assert len({row["offset"] for row in table.rows}) == 2
    assert table.rows[0]["url"] == "http://images.cocodataset.org/train2017/000000000009.jpg"


def test_coco_without_local_images_is_a_list_of_urls(tmp_path: Path) -> None:
    local = ready("coco-captions", tmp_path)
    rows = scanned(local.model_copy(update={"images": None}), tmp_path)
    assert {row.url for row in rows if row.failure is None} == {
        f"http://images.cocodataset.org/train2017/{number:012d}.jpg" for number in (9, 25, 30)
    }


def test_visual_genome_takes_the_phrases_of_the_largest_regions(tmp_path: Path) -> None:
    captions = [row["caption"] for row in loaded("visual-genome", tmp_path).rows]
    assert captions == [*(f"phrase {at}" for at in range(4, 12)), "a tree"]


def test_conversations_are_kept_whole_and_without_placeholders(tmp_path: Path) -> None:
    long, short = (row["turns"] for row in loaded("llava-instruct-150k", tmp_path).rows)
    assert [turn["question"] for turn in long] == ["What is it?", "Where?", "Why?"]
    assert short == [{"question": "Describe it.", "answer": "A dog."}]


def test_the_one_answer_of_pretraining_data_is_a_caption(tmp_path: Path) -> None:
    rows = loaded("llava-1-5-pretrain", tmp_path).rows
    assert [row["caption"] for row in rows] == ["caption of 004539375", "caption of 004539376"]


def test_a_conversation_without_an_image_is_kept_and_its_lines_too(tmp_path: Path) -> None:
    rows = loaded("llava-1-5-finetune", tmp_path).rows
    assert [row["shard"] is None for row in rows] == [False, True]
    assert rows[1]["turns"][0]["answer"] == "Roses are red,\nviolets are blue."


def test_m3it_gives_a_row_without_an_instruction_one_of_its_task(tmp_path: Path) -> None:
    first, second, *_ = loaded("m3it-en", tmp_path).rows
    assert first["turns"][0]["question"] in ("Describe the picture.", "What do you see?")
    assert second["turns"][0]["question"] == "Answer it.\nWhat is 1?"


def test_numbered_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    files = ready("wukong", tmp_path).files
    assert [path.name for path in files] == [f"wukong_100m_{number}.csv" for number in (0, 2, 10)]
