"""The rules of scoring, each shown by a made-up model to which only that rule matters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.benchmarks.answers import FILE, LOST, UNANSWERED, read
from pipelines.benchmarks.question import Asked
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.score_answers.spec import STAGE, ScoreAnswersSpec
from pipelines.stage import execute
from tests.benchmarks.conftest import publish

AnsweredBy = Callable[..., Path]


@pytest.fixture
def scores_of(benchmarks: Path, answered_by: AnsweredBy, tmp_path: Path) -> Callable[..., Any]:
    def score(reply: Callable[[Asked], str | None]) -> Any:
        answers = answered_by("model", reply)
        spec = ScoreAnswersSpec(
            output=tmp_path / "scores", answers={"model": answers}, benchmarks={"world": benchmarks}
        )
        execute(STAGE, spec)
        return json.loads(manifest.file(tmp_path / "scores", "scores.json").read_text())

    return score


def test_a_model_that_knows_everything_scores_one_everywhere_with_doubt_left(scores_of: Any) -> None:
    scores = scores_of(lambda asked: asked.gold)
    model = scores["models"]["model"]
    assert scores["complete"] and scores["languages"] == ["en", "zh"]
    for language in ("en", "zh"):
        assert model["mmmb"][language]["circular"]["value"] == 1.0
        assert model["mmmb"][language]["circular"]["low"] < 1.0
        assert model["open"][language]["content_in_asked_language"]["value"] == 1.0
        assert model["language"][language]["asked"]["value"] == 1.0
        assert set(model["mmmb"][language]["by_category"]) == {
            "colour",
            "shape",
            "count",
            "position",
            "relation",
        }


def test_always_the_same_letter_is_right_by_chance_and_never_in_every_rotation(scores_of: Any) -> None:
    model = scores_of(lambda asked: "A")["models"]["model"]
    assert 0 < model["mmmb"]["en"]["plain"]["value"] < 0.6
    assert model["mmmb"]["en"]["circular"]["value"] == 0.0
    assert model["mmmb"]["en"]["unresolved"]["value"] == 0.0


def test_one_wrong_rotation_makes_the_item_wrong_in_circular_accuracy_alone(scores_of: Any) -> None:
    def reply(asked: Asked) -> str:
        wrong = "B" if asked.gold == "A" else "A"
        return wrong if asked.rotation == 3 and asked.item == "0" else asked.gold

    model = scores_of(reply)["models"]["model"]
    assert model["mmmb"]["zh"]["plain"]["value"] == 1.0
    assert model["mmmb"]["zh"]["circular"]["value"] == pytest.approx(31 / 32, abs=1e-4)


def test_right_answers_in_english_are_right_in_content_and_wrong_in_language(scores_of: Any) -> None:
    model = scores_of(lambda asked: dict(asked.concept)["en"] if asked.concept else asked.gold)["models"][
        "model"
    ]
    assert model["open"]["zh"]["content"]["value"] == 1.0
    assert model["open"]["zh"]["content_in_asked_language"]["value"] == 0.0
    assert model["language"]["zh"]["asked"]["value"] == 0.0
    assert model["language"]["zh"]["answers_in"] == {"en": 40}
    assert model["language"]["en"]["asked"]["value"] == 1.0


def test_what_says_nothing_is_unresolved_and_of_no_language(scores_of: Any) -> None:
    model = scores_of(lambda asked: "...")["models"]["model"]
    assert model["mmmb"]["en"]["unresolved"]["value"] == 1.0
    assert model["open"]["en"]["unresolved"]["value"] == 1.0
    assert model["language"]["en"]["asked"] is None and model["language"]["en"]["abstained"] == 40


def test_an_unanswered_question_is_wrong_named_and_makes_the_scores_incomplete(scores_of: Any) -> None:
    def reply(asked: Asked) -> str | None:
        return None if asked.key == ("mmmb", "zh", "5", 2) else asked.gold

    scores = scores_of(reply)
    complete = scores["models"]["model"]["complete"]
    assert not scores["complete"] and complete["missing"] == ["mmmb zh 5 2"]
    assert scores["models"]["model"]["mmmb"]["zh"]["circular"]["value"] < 1.0


def test_each_table_of_scores_hands_the_headlines_of_earlier_runs_on(
    benchmarks: Path, answered_by: AnsweredBy, tmp_path: Path
) -> None:
    found = []
    for place, right in enumerate((True, False, True)):
        answers = answered_by(f"model-{place}", lambda asked, right=right: asked.gold if right else "...")
        spec = ScoreAnswersSpec(
            output=tmp_path / "scores", answers={"model": answers}, benchmarks={"world": benchmarks}
        )
        found.append(execute(STAGE, spec).metrics["runs"])
    assert [[run["model, mmmb circular zh"] for run in runs] for runs in found] == [[], [1.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 5}, "answer is 5"),
        ({"item": 7}, "item is 7"),
        ({"rotation": "0"}, 'rotation is "0"'),
        ({"rotation": True}, "rotation is true"),
        ({"answer": None}, r"for no known reason \(''\)"),
        ({"answer": None, "skipped": LOST, "rotation": 0}, "for no known reason"),
        ({"answer": None, "skipped": f"{UNANSWERED}timeout"}, "for no known reason"),
    ],
)
def test_a_line_that_is_neither_an_answer_nor_refused_nor_lost_is_named(
    answered_by: AnsweredBy, change: dict[str, Any], message: str
) -> None:
    """Else a question would be neither missing nor scored."""
    path = manifest.file(answered_by("model", lambda asked: asked.gold), FILE)
    lines = path.read_text().splitlines()
    lines[3] = json.dumps(json.loads(lines[3]) | change)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(BadInput, match=message) as caught:
        read(path.parent.parent)
    assert caught.value.where == f"{path}, line 4"


@pytest.mark.parametrize("kept", [0, 1])
def test_a_file_without_answers_is_named(answered_by: AnsweredBy, kept: int) -> None:
    path = manifest.file(answered_by("model", lambda asked: asked.gold), FILE)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:kept]))
    with pytest.raises(BadInput, match="no answers in it") as caught:
        read(path.parent.parent)
    assert caught.value.where == str(path)


def test_answers_in_a_language_that_the_tables_lack_are_named(
    answered_by: AnsweredBy, benchmarks: Path, tmp_path: Path
) -> None:
    (tmp_path / "english/made").mkdir(parents=True)
    for path in (benchmarks / "made").glob("*_en.*"):
        shutil.copy(path, tmp_path / "english/made")
    answers = answered_by("model", lambda asked: asked.gold)
    spec = ScoreAnswersSpec(
        output=tmp_path / "scores", answers={"model": answers},
        benchmarks={"world": publish(tmp_path / "english", "world")},
    )  # fmt: skip
    with pytest.raises(BadInput, match=r"'zh'.* belongs to another benchmark") as caught:
        execute(STAGE, spec)
    assert caught.value.where == str(manifest.file(answers, FILE)) and "tables" in caught.value.remedy


def test_answers_to_another_benchmark_are_refused(scores_of: Any) -> None:
    def reply(asked: Asked) -> str:
        object.__setattr__(asked, "image_sha256", "0" * 64)
        return asked.gold

    with pytest.raises(BadInput, match="another benchmark"):
        scores_of(reply)
