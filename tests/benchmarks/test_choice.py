"""Guarantees of the MMMB loader: cells are strings, errors name file and row, rotations keep the letters."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from pipelines.benchmarks import choice, question_table
from pipelines.benchmarks.prompts import choice_prompt
from pipelines.benchmarks.question import LETTERS
from pipelines.errors import BadInput
from tests.benchmarks import published


def load(path: Path, *, circular: bool = True) -> list[choice.ChoiceItem]:
    return choice.load(path, circular=circular)


IMAGE = base64.b64encode(b"not really an image, but long enough to be no pointer to another row").decode()
HEADER = ["index", "image", "question", "hint", "A", "B", "C", "D", "answer", "category", "split"]


def row(**changes: str) -> dict[str, str]:
    cells = dict(
        zip(
            HEADER,
            ["1", IMAGE, "What?", "", "red", "green", "blue", "black", "B", "colour", "test"],
            strict=True,
        )
    )
    return cells | changes


def write(path: Path, *rows: dict[str, str]) -> Path:
    lines = ["\t".join(HEADER), *("\t".join(cells.values()) for cells in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_cells_stay_the_strings_that_they_are(tmp_path: Path) -> None:
    odd = row(A="None", B="NA", C="1", D='true "', question='He said "what')
    item, second = load(write(tmp_path / "mmmb_en.tsv", odd, row(index="2", image="1")))
    assert item.options == ("None", "NA", "1", 'true "')
    assert item.question == 'He said "what'
    assert second.image == item.image


def test_rotations_move_the_options_past_the_letters(tmp_path: Path) -> None:
    (item,) = load(write(tmp_path / "mmmb_en.tsv", row()))
    turned = item.rotations
    assert [rotation.options[LETTERS.index(rotation.answer)] for rotation in turned] == ["green"] * 4
    assert sorted(rotation.answer for rotation in turned) == ["A", "B", "C", "D"]
    assert turned[0].options == item.options and turned[0].answer == item.answer
    assert len({rotation.options for rotation in turned}) == 4


def test_fewer_options_give_fewer_rotations(tmp_path: Path) -> None:
    (item,) = load(write(tmp_path / "mmmb_en.tsv", row(C="", D="")))
    assert [rotation.answer for rotation in item.rotations] == ["B", "A"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "E"}, "answer 'E'"),
        ({"answer": "AB"}, "answer 'AB'"),
        ({"answer": ""}, "answer ''"),
        ({"question": " "}, "question is empty"),
        ({"B": ""}, "without a gap"),
        ({"image": "77"}, "names no row"),
        ({"image": "2"}, "names no row"),
        ({"image": "%" * 80}, "not base64"),
        ({"index": "1"}, "stands twice"),
        ({"hint": "a\tb"}, "12 cells"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    path = write(tmp_path / "mmmb_en.tsv", row(), row(index="2") | changes)
    with pytest.raises(BadInput, match=message) as caught:
        load(path)
    assert f"{path}, row 3" in caught.value.where


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mmmb_en.tsv"
    path.write_text("index\tquestion\n1\tWhat?\n")
    with pytest.raises(BadInput, match="image, A, B, answer are missing"):
        load(path)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mmmb_en.tsv"
    for content in (b"", b"\xff\xfe\x00"):
        path.write_bytes(content)
        with pytest.raises(BadInput):
            load(path)
        with pytest.raises(BadInput):
            question_table.load(path)
    with pytest.raises(BadInput, match="does not exist"):
        load(tmp_path / "none.tsv")


def test_the_prompt_is_exactly_this() -> None:
    asked = choice_prompt("圆形是什么颜色？", ["红色", "绿色"], request="请回答。", hint="看图")
    assert asked == "看图\n圆形是什么颜色？\nA. 红色\nB. 绿色\n请回答。"


def test_marks_that_would_swallow_rows_are_named(tmp_path: Path) -> None:
    rows = [row(index=str(number), question=f"question {number}") for number in range(8)]
    rows[2]["question"] = '"Stop" is on which sign?'
    rows[5]["question"] = 'Which sign says "Stop"'
    path = write(tmp_path / "mmmb_en.tsv", *rows)
    assert len(load(path)) == 8
    # A mark that begins a cell and one that ends a cell three rows later: well-formed with quoting, too, over 5 rows.
    rows[2]["question"], rows[5]["question"] = '"Stop, says the sign?', 'Which sign says Stop"'
    path = write(tmp_path / "mmmb_en.tsv", *rows)
    with pytest.raises(
        BadInput, match=r"ends 3 line\(s\) further down, though line 4 is a row by itself"
    ) as caught:
        load(path)
    assert f"{path}, row 4 (line 4 of the file)" in caught.value.where
    # Two rows that stand one after the other.
    rows[2], rows[3]["question"], rows[5]["question"] = row(index="2", question='"a'), 'b"', "c"
    with pytest.raises(BadInput, match=r"ends 1 line\(s\) further down"):
        load(write(tmp_path / "mmmb_en.tsv", *rows))


def test_a_quoted_cell_of_several_lines_is_one_cell(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mmmb_en.tsv", row(), row(index="2", hint='"first\n\nsecond\twith a tab"'), row(index="3")
    )
    path.write_text(path.read_text() + "\n\n" + "\t".join(row(index="4").values()) + "\n")
    assert [one.hint for one in load(path)] == ["", "first\n\nsecond\twith a tab", "", ""]


def test_a_last_cell_of_several_lines_swallows_no_row(tmp_path: Path) -> None:
    rows = [row(index=str(number), split='"a\nb"') for number in range(3)]
    assert len(load(write(tmp_path / "mmmb_en.tsv", *rows))) == 3


def with_indices(path: Path, *indices: int) -> Path:
    rows = [
        [str(index), published.encoded(place), "Which?", "red", "green", "A"]
        for place, index in enumerate(indices)
    ]
    published.tsv(path, ["index", "image", "question", "A", "B", "answer"], rows)
    return path


def test_indices_of_a_million_and_more_are_items_like_others_where_none_is_a_rotation(tmp_path: Path) -> None:
    items = choice.load(with_indices(tmp_path / "items.tsv", 1_000_000, 1_000_001, 2_000_005), circular=True)
    assert [item.index for item in items] == ["1000000", "1000001", "2000005"]
    assert {len(item.rotations) for item in items} == {2}


def test_a_rotation_without_its_item_is_named(tmp_path: Path) -> None:
    path = with_indices(tmp_path / "items.tsv", 5, 1_000_005, 1_000_006)
    with pytest.raises(BadInput, match="as other rows of the file are: of the item 6") as caught:
        choice.load(path, circular=True)
    assert "row 4 (index '1000006')" in caught.value.where
