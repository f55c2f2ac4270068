"""The instruction mix: the share holds exactly, choices are answered by their option, and rejects leave with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines.errors import BadInput
from pipelines.instructions.mix import Chosen, choose, target_count
from pipelines.instructions.spec import STAGE, InstructionParameters, InstructionSpec
from pipelines.instructions.turn import OPTIONS_COLLIDE, Instruction, translated
from pipelines.lake import manifest
from pipelines.lake.shards import ShardReader
from pipelines.stage import execute
from pipelines.translate.guarded import Translation
from pipelines.world import instructions
from pipelines.world.grammar import grammar
from pipelines.world.text import few_sentences
from tests import tables
from tests.small_translator import short_sentence_translator

COUNT = 60


class Written(NamedTuple):
    text: str
    finished: bool
    failure: str = ""


class Capricious:
    """Translates into made-up words, and into nothing where the text holds a given digit."""

    def __init__(self, refused: str) -> None:
        self.refused = refused

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[Written]:
        return [Written("" if self.refused in text else f"译文{text}文文文", True) for text in texts]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with instructions that the small translator knows: its captions it does not."""

    def write(folder: Path) -> None:
        (folder / "instructions").mkdir()
        rows = instructions.table(COUNT, seed=1, words=grammar("en"), done=lambda _: None)
        pq.write_table(rows, folder / "instructions/en.parquet")

    return tables.publish(tmp_path_factory.mktemp("world"), write)


def mix(world: Path, output: Path, share: float, **changes: Any) -> ShardReader:
    settings: dict[str, Any] = {
        "world": world, "translator": short_sentence_translator(), "threads": 1, "output": output,
        "parameters": InstructionParameters(target_share=share, samples_per_shard=16),
    }  # fmt: skip
    execute(STAGE, InstructionSpec(**{**settings, **changes}))
    return ShardReader(output)


def languages(reader: ShardReader) -> list[str]:
    return [reader.document(place)["turns"][0]["language"] for place in range(len(reader))]


@pytest.mark.parametrize(
    ("share", "samples", "count"),
    [(0, 9, 0), (0.001, 4000, 4), (0.001, 60, 1), (0.1, 30, 3), (0.25, 10, 3), (1, 7, 7)],
)
def test_the_number_of_translated_samples_is_rounded_up(share: float, samples: int, count: int) -> None:
    assert target_count(share, samples) == count


def test_the_share_holds_and_the_rest_is_untouched(world: Path, tmp_path: Path) -> None:
    reader = mix(world, tmp_path / "out", 0.25)
    made = manifest.read(tmp_path / "out")
    assert made.ledger is not None
    assert made.ledger.rows_in == COUNT
    assert made.ledger.kept == len(reader)
    assert languages(reader).count("zh") == target_count(0.25, len(reader))
    source = pq.read_table(manifest.files(world)[0]).to_pylist()
    by_image = {row["image"]: row for row in source}
    for place in range(len(reader)):
        image, document = reader[place]
        row, turn = by_image[image], document["turns"][0]
        assert set(document) == {"uid", "source", "turns"}
        assert reader.languages[place].as_py() == [turn["language"]]
        if turn["language"] == "en":
            lines = [f"{letter}. {option}" for letter, option in zip("ABCD", row["options"], strict=False)]
            assert turn["question"] == "\n".join(
                [row["question"], *lines, *([row["choose"]] if lines else [])]
            )
            assert turn["answer"] == (row["options"]["ABCD".index(row["answer"])] if lines else row["answer"])


def test_a_translated_choice_keeps_its_letters_and_is_answered_by_its_translated_option(
    world: Path, tmp_path: Path
) -> None:
    reader = mix(world, tmp_path / "out", 1.0)
    words = {row["en"]: row["zh"] for row in few_sentences([grammar("en"), grammar("zh")])}
    by_image = {row["image"]: row for row in pq.read_table(manifest.files(world)[0]).to_pylist()}
    choices = 0
    for place in range(len(reader)):
        image, document = reader[place]
        row, turn = by_image[image], document["turns"][0]
        assert turn["language"] == "zh"
        if row["kind"] == "choice":
            choices += 1
            options = [
                f"{letter}. {words[text]}" for letter, text in zip("ABCD", row["options"], strict=True)
            ]
            assert turn["question"].split("\n") == [words[row["question"]], *options, words[row["choose"]]]
            assert turn["answer"] == words[row["options"]["ABCD".index(row["answer"])]]
    assert choices > 5


def test_equal_specs_give_equal_bytes(world: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        mix(world, tmp_path / name, 0.3)
    one, two = (
        {path.name: path.read_bytes() for path in manifest.files(tmp_path / name)} for name in ("one", "two")
    )
    assert one == two


def test_a_share_of_zero_needs_no_translator(world: Path, tmp_path: Path) -> None:
    assert languages(mix(world, tmp_path / "out", 0.0, translator=None)) == ["en"] * COUNT
    with pytest.raises(BadInput, match="translator"):
        mix(world, tmp_path / "other", 0.1, translator=None)


def _choose(ids: list[str], share: float, refused: str) -> Chosen:
    asked = [Instruction("open", f"q{one}?", (), f"a{one}", "") for one in ids]
    parameters = InstructionParameters(target_share=share)
    return choose(ids, asked, Capricious(refused), parameters, lambda _: None)


@given(
    ids=st.lists(st.integers(0, 999).map(str), unique=True, min_size=1, max_size=40),
    share=st.integers(0, 100).map(lambda percent: percent / 100),
    refused=st.sampled_from("0123456789"),
)
def test_rejected_samples_are_replaced_until_the_share_holds(
    ids: list[str], share: float, refused: str
) -> None:
    chosen = _choose(ids, share, refused)
    assert len(chosen.translated) == target_count(share, len(ids) - len(chosen.dropped))
    assert all(refused in ids[row] for row in chosen.dropped)
    assert not any(refused in ids[row] for row in chosen.translated)
    backwards = _choose(ids[::-1], share, refused)
    assert {ids[row] for row in chosen.translated} == {ids[::-1][row] for row in backwards.translated}


@given(ids=st.lists(st.integers(0, 999).map(str), unique=True, min_size=1, max_size=40))
def test_a_larger_share_translates_what_a_smaller_one_does(ids: list[str]) -> None:
    translated_rows = [set(_choose(ids, share, "x").translated) for share in (0.01, 0.1, 0.5, 1.0)]
    assert all(less <= more for less, more in pairwise(translated_rows))


def test_options_that_become_the_same_are_rejected() -> None:
    asked = Instruction("choice", "Which?", ("big", "large"), "A", "Answer.")
    results = {text: Translation(text, "大") for text in asked.texts}
    assert translated(asked, results) == (None, OPTIONS_COLLIDE)


def test_the_pivot_language_is_no_target() -> None:
    with pytest.raises(ValidationError):
        InstructionParameters(target_languages=["en"])
