"""Instruction corpora in a mix: whole conversations from a crawl's table, with their translations beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.conversations import table
from pipelines.download.spec import STAGE as DOWNLOAD
from pipelines.download.spec import DownloadParameters, spec_for
from pipelines.errors import BadInput
from pipelines.instructions.spec import STAGE, InstructionSpec
from pipelines.lake import manifest
from pipelines.lake.shards import ShardReader
from pipelines.progress import QUIET_VARIABLE
from pipelines.stage import execute
from tests import tables
from tests.download.layouts import LAYOUTS

READY = Path(__file__).parents[2] / "recipes" / "crawls"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of a small LLaVA-1.5-finetune: a conversation of two turns, and one without an image."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(QUIET_VARIABLE, "1")
        folder = tmp_path_factory.mktemp("corpus")
        LAYOUTS["llava-1-5-finetune"](folder)
        crawl = folder / "crawl.yaml"
        crawl.write_bytes((READY / "llava-1-5-finetune.yaml").read_bytes())
        execute(DOWNLOAD, spec_for(crawl, DownloadParameters(), folder / "table", workers=1))
    return folder / "table"


def translation(folder: Path, entries: list[dict[str, object]]) -> Path:
    def write(into: Path) -> None:
        (into / "zh.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        (into / "dropped.jsonl").write_text("")

    return tables.publish(folder / "translated", write)


def translated(entry: dict[str, object]) -> dict[str, object]:
    said = [{**message, "value": f"译 {message['value']}"} for message in entry["conversations"]]  # type: ignore[attr-defined]
    return {**entry, "conversations": said, "language": "zh"}


def mix(output: Path, **sources: object) -> ShardReader:
    execute(STAGE, InstructionSpec.model_validate({"output": output, **sources}))
    return ShardReader(output)


def test_a_conversation_enters_the_mix_whole_and_one_without_an_image_is_counted(
    corpus: Path, tmp_path: Path
) -> None:
    reader = mix(tmp_path / "mix", corpora={"llava": corpus})
    image, document = reader[0]
    assert len(reader) == 1
    assert image.startswith(b"\xff\xd8")
    assert document["source"] == "llava"
    assert [(turn["language"], turn["question"], turn["answer"]) for turn in document["turns"]] == [
        ("en", "What?", "A cat."), ("en", "Colour?", "Red."),
    ]  # fmt: skip
    ledger = manifest.read(tmp_path / "mix").ledger
    assert ledger is not None
    assert (ledger.rows_in, ledger.kept, ledger.dropped) == (2, 1, {"no_image": 1})


def test_translations_stand_beside_the_originals_with_the_same_image(corpus: Path, tmp_path: Path) -> None:
    entries = list(table.entries(corpus))
    made = translation(tmp_path, [translated(entries[0])])
    reader = mix(tmp_path / "mix", corpora={"llava": corpus}, translations={"llava": made})
    (first, _), (second, chinese) = reader[0], reader[1]
    assert first == second
    assert [turn["question"] for turn in chinese["turns"]] == ["译 What?", "译 Colour?"]
    assert reader.languages.to_pylist() == [["en"], ["zh"]]
    assert manifest.read(tmp_path / "mix").metrics["corpora"] == {"llava": {"en": 1, "zh": 1}}


def test_a_translation_of_something_else_is_refused(corpus: Path, tmp_path: Path) -> None:
    entry = translated({**next(table.entries(corpus)), "id": "0" * 32})
    with pytest.raises(BadInput, match="not in the corpus 'llava'"):
        mix(
            tmp_path / "mix",
            corpora={"llava": corpus},
            translations={"llava": translation(tmp_path, [entry])},
        )


def test_a_table_of_pairs_is_no_corpus(tmp_path: Path) -> None:
    pairs = tables.raw_pairs(tmp_path / "pairs", tables.world_rows(3), shards=1)
    with pytest.raises(BadInput, match="holds no conversations"):
        mix(tmp_path / "mix", corpora={"pairs": pairs})


def test_a_damaged_tar_is_named(corpus: Path, tmp_path: Path) -> None:
    copied = tables.publish(
        tmp_path / "copy",
        lambda into: [(into / p.name).write_bytes(p.read_bytes()) for p in manifest.files(corpus)] and None,
    )
    (tar,) = manifest.files(copied, ".tar")
    content = bytearray(tar.read_bytes())
    content[600] ^= 0xFF
    tar.write_bytes(bytes(content))
    with pytest.raises(BadInput, match="is not the one that was taken in"):
        list(table.conversations(copied))


def test_a_mix_of_nothing_and_translations_of_nothing_are_refused(tmp_path: Path) -> None:
    for sources in ({}, {"world": tmp_path, "translations": {"llava": tmp_path}}):
        with pytest.raises(ValidationError):
            InstructionSpec.model_validate({"output": tmp_path, **sources})
