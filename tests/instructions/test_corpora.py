"""Instruction corpora in a mix: whole conversations from a crawl's table, with their translations beside them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.conversations import table
from pipelines.download.spec import STAGE as DOWNLOAD
from pipelines.download.spec import DownloadParameters, spec_for
from pipelines.errors import BadInput
from pipelines.instructions.corpora import share_counts
from pipelines.instructions.spec import STAGE, InstructionSpec
from pipelines.lake import manifest
from pipelines.lake.shards import ShardReader
from pipelines.progress import QUIET_VARIABLE
from pipelines.stage import execute
from tests import conversation_corpus, tables
from tests.download.layouts import LAYOUTS

MANY = 40
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


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of conversations about no image, and one about an image."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(QUIET_VARIABLE, "1")
        folder = tmp_path_factory.mktemp("many")
        talks = [
            conversation_corpus.entry(str(at), None, f"What is {at}?", "A number.") for at in range(MANY)
        ]
        crawl = conversation_corpus.write(folder / "corpus", talks, {})
        return conversation_corpus.taken_in(crawl, folder / "table")


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


def test_conversations_enter_the_mix_whole_and_those_about_no_image_too(corpus: Path, tmp_path: Path) -> None:
    reader = mix(tmp_path / "mix", corpora={"llava": corpus})
    image, document = reader[0]
    assert len(reader) == 2
    assert image.startswith(b"\xff\xd8")
    assert document["source"] == "llava"
    assert [(turn["language"], turn["question"], turn["answer"]) for turn in document["turns"]] == [
        ("en", "What?", "A cat."), ("en", "Colour?", "Red."),
    ]  # fmt: skip
    nothing, poem = reader[1]
    assert (nothing, reader.images(0), reader.images(1)) == (b"", 1, 0)
    assert poem["turns"][0]["question"] == "Write a poem."
    made = manifest.read(tmp_path / "mix")
    assert made.ledger is not None
    assert (made.ledger.rows_in, made.ledger.kept, made.ledger.dropped) == (2, 2, {})
    assert made.metrics["without_image"] == {"llava": 1}


def test_a_shard_with_samples_without_images_is_read_by_any_webdataset_reader(
    corpus: Path, tmp_path: Path
) -> None:
    mix(tmp_path / "mix", corpora={"llava": corpus})
    (tar,) = manifest.files(tmp_path / "mix", ".tar")
    with tarfile.open(tar) as opened:
        endings = [name.partition(".")[2] for name in opened.getnames()]
    assert endings == ["jpg", "json", "json"]


@pytest.mark.parametrize(
    ("share", "originals", "translations", "kept"),
    [
        (0.5, 100, 100, (100, 100)), (0.5, 100, 95, (95, 95)), (0.1, 90, 90, (90, 10)), (0.0, 9, 9, (9, 0)),
        (0.001, 10, 10, (10, 1)), (0.75, 100, 100, (33, 100)), (1.0, 5, 4, (0, 4)), (0.8, 10, 40, (10, 40)),
    ],
)  # fmt: skip
def test_the_share_holds_in_a_translated_corpus(
    share: float, originals: int, translations: int, kept: tuple[int, int]
) -> None:
    assert share_counts(share, originals, translations) == kept


def test_a_larger_share_takes_more_of_the_same_and_what_is_left_out_is_counted(
    many: Path, tmp_path: Path
) -> None:
    made = translation(tmp_path, [translated(one) for one in table.entries(many)])
    chosen = {}
    for share in (0.1, 0.25, 0.5, 0.75):
        output = tmp_path / str(share)
        reader = mix(
            output, corpora={"c": many}, translations={"c": made}, parameters={"target_share": share}
        )
        languages = reader.languages.to_pylist()
        chosen[share] = {
            uid for uid, one in zip(reader.uids.to_pylist(), languages, strict=True) if one == ["zh"]
        }
        ledger = manifest.read(output).ledger
        assert ledger is not None
        assert ledger.rows_in == 2 * MANY and ledger.kept == len(reader)
        assert ledger.dropped == ({} if share == 0.5 else {"beyond_share": 2 * MANY - len(reader)})
        assert abs(len(chosen[share]) / len(reader) - share) < 1 / len(reader)
    assert chosen[0.1] < chosen[0.25] < chosen[0.5] == chosen[0.75]


def test_translations_stand_beside_the_originals_with_the_same_image(corpus: Path, tmp_path: Path) -> None:
    entries = list(table.entries(corpus))
    made = translation(tmp_path, [translated(entry) for entry in entries])
    reader = mix(tmp_path / "mix", corpora={"llava": corpus}, translations={"llava": made})
    (first, _), (second, chinese) = reader[0], reader[1]
    assert first == second
    assert [reader.images(place) for place in range(len(reader))] == [1, 1, 0, 0]
    assert [turn["question"] for turn in chinese["turns"]] == ["译 What?", "译 Colour?"]
    assert reader.languages.to_pylist() == [["en"], ["zh"]] * 2
    assert manifest.read(tmp_path / "mix").metrics["corpora"] == {"llava": {"en": 2, "zh": 2}}


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
