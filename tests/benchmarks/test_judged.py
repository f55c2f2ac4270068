"""Benchmarks that a judge rates, through a real server: what failed is counted apart, and a rerun goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assets import checks
from pipelines.benchmark_files.spec import STAGE as FILES
from pipelines.benchmark_files.spec import BenchmarkFilesSpec
from pipelines.benchmarks import answers, judged, suite
from pipelines.benchmarks.benchmark import catalogue
from pipelines.benchmarks.left_in_english import left_in_english
from pipelines.benchmarks.question import Asked
from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput, Interrupted
from pipelines.judge.items import Review
from pipelines.judge.spec import Judge
from pipelines.lake import manifest
from pipelines.remote.spec import Conduct, Server
from pipelines.score_answers import pack
from pipelines.score_answers.estimate import estimated
from pipelines.score_answers.spec import STAGE, ScoreAnswersSpec
from pipelines.stage import execute, why_not_reusable
from pipelines.world.grammar import grammar
from pipelines.world.text import few_sentences
from tests.benchmarks import published
from tests.benchmarks.conftest import publish
from tests.chat_server import Answer, Call, serving
from tests.small_translator import short_sentence_translator


@pytest.fixture
def llava(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    for language in ("en", "zh"):
        published.llava(tmp_path / "files", language)
    files = {path.name: path for path in (tmp_path / "files").iterdir()}
    images = published.images(tmp_path / "images")
    execute(
        FILES, BenchmarkFilesSpec(output=tmp_path / "llava", benchmark="llava", files=files, images=images)
    )
    return tmp_path / "llava"


@pytest.fixture
def said(llava: Path, tmp_path: Path) -> Path:
    (tmp_path / "answers/made").mkdir(parents=True)
    rows = [answers.row(one, f"I see a dog. {one.item}") for one in suite.load([llava])]
    answers.write(rows, tmp_path / "answers/made" / answers.FILE)
    return publish(tmp_path / "answers", "answers")


def spec(
    url: str, llava: Path, said: Path, folder: Path, *, most_judge_failures: float = 0.05, **conduct: Any
) -> ScoreAnswersSpec:
    return ScoreAnswersSpec(
        output=folder / "scores", answers={"model": said}, benchmarks={"llava": llava},
        most_judge_failures=most_judge_failures,
        judge=Judge(server=Server(base_url=url, model="a-judge"), swap=False),
        conduct=Conduct(backoff_seconds=0.01, attempts=2, **conduct), judge_cache=folder / "cache.sqlite",
    )  # fmt: skip


def scores(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(manifest.file(folder / "scores", "scores.json").read_text())
    return found["models"]["model"]["llava"]


def test_the_judge_is_shown_context_and_reference_and_its_failures_enter_no_mean(
    llava: Path, said: Path, tmp_path: Path
) -> None:
    prompts: list[str] = []

    def behave(call: Call) -> Answer:
        prompts.append(call.prompt)
        return Answer(text="no numbers" if "I see a dog. 1" in call.prompt else "8 6\nbecause")

    with serving(behave) as (_, url):
        made = execute(STAGE, spec(url, llava, said, tmp_path, most_judge_failures=0.5))
    first = next(prompt for prompt in prompts if "question 0?" in prompt)
    assert first.index("One dog.") < first.index("dog: [0.1, 0.2, 0.3, 0.4]") < first.index("question 0?")
    assert first.index("the answer to 0") < first.index("I see a dog. 0")
    english = scores(tmp_path)["en"]
    assert english["judge"] == "a-judge" and english["is_a_model"]
    assert english["relative"]["value"] == 0.75 and english["relative"]["n"] == 2
    assert english["by_category"]["detail"]["relative"] is None
    assert english["failed"] == pytest.approx(1 / 3, abs=1e-3) == made.metrics["judge_failure_rate"]


def test_what_a_model_refused_is_not_judged_and_is_counted(llava: Path, tmp_path: Path) -> None:
    (tmp_path / "answers/made").mkdir(parents=True)
    rows = [
        answers.row(one, None, answers.REFUSED + "content_filter")
        if (one.language, one.item) == ("en", "1")
        else answers.row(one, f"I see a dog. {one.item}")
        for one in suite.load([llava])
    ]
    answers.write(rows, tmp_path / "answers/made" / answers.FILE)
    with serving(lambda _: Answer(text="8 6\nbecause")) as (server, url):
        made = execute(STAGE, spec(url, llava, publish(tmp_path / "answers", "answers"), tmp_path))
    found = scores(tmp_path)
    assert [(found[language]["items"], found[language]["without_answer"]) for language in ("en", "zh")] == [
        (2, 1),
        (3, 0),
    ]
    assert len(server.calls) == 5 and made.metrics["complete"] is False


@pytest.mark.parametrize("name", ["llava", "lava.en", "mmmb.en", "llava.English"])
def test_a_rule_that_no_judge_would_be_given_is_named(
    llava: Path, said: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "rule.json").write_text("{}")
    told = spec("http://127.0.0.1:9/v1", llava, said, tmp_path)
    told = told.model_copy(update={"rules": {name: tmp_path / "rule.json"}})
    with pytest.raises(BadInput, match="no judge would be given") as caught:
        execute(STAGE, told)
    assert caught.value.where == f"rules, {name}: {tmp_path / 'rule.json'}"


def test_a_judge_that_is_down_stops_the_scoring_and_a_rerun_asks_only_what_is_missing(
    llava: Path, said: Path, tmp_path: Path
) -> None:
    down, asked = True, 0

    def behave(call: Call) -> Answer:
        nonlocal asked
        asked += 1
        return Answer(status=503) if down and asked > 2 else Answer(text="8 6\nbecause")

    with serving(behave) as (_, url):
        told = spec(url, llava, said, tmp_path, outage_seconds=0.5, concurrency=1)
        with pytest.raises(Interrupted):
            execute(STAGE, told)
        assert not manifest.exists(tmp_path / "scores")
        down, asked = False, 0
        execute(STAGE, told)
    assert asked == 2 * 3 - 2
    assert scores(tmp_path)["zh"]["relative"]["value"] == 0.75


@pytest.mark.parametrize("most", [0.05, 0.5], ids=["nothing published", "published with a gap"])
def test_reviews_that_failed_are_asked_for_again_alone_until_the_score_is_whole(
    llava: Path, said: Path, tmp_path: Path, most: float
) -> None:
    def behave(call: Call) -> Answer:
        return Answer(text="I would rather not." if "I see a dog. 1" in call.prompt else "8 6\nbecause")

    with serving(behave) as (chat, url):
        told = spec(url, llava, said, tmp_path, most_judge_failures=most)
        if most < 1 / 3:
            with pytest.raises(
                Interrupted, match=r"model, llava in en: 1 of 3 \(1 unreadable_review; .* item 1: I would"
            ):
                execute(STAGE, told)
            assert not manifest.exists(tmp_path / "scores")
        else:
            assert execute(STAGE, told).incomplete == "2 reviews of the judge failed"
            assert scores(tmp_path)["en"]["relative"]["n"] == 2
            assert "reviews of the judge failed" in why_not_reusable(STAGE, told)[1]
        assert len(chat.calls) == 2 * 3
        chat.script = lambda _: Answer(text="8 6\nbecause")
        made = execute(STAGE, told)
        assert len(chat.calls) == 2 * 3 + 2
        assert (scores(tmp_path)["en"]["relative"]["n"], scores(tmp_path)["en"]["failed"]) == (3, 0.0)
        # The run with gaps is no score to be held against.
        assert made.incomplete == "" and made.metrics["runs"] == []
        assert execute(STAGE, told) == made and len(chat.calls) == 2 * 3 + 2


def test_what_the_judge_wrote_stands_beside_the_scores(llava: Path, said: Path, tmp_path: Path) -> None:
    with serving(lambda _: Answer(text="8 6\nbecause")) as (_, url):
        execute(STAGE, spec(url, llava, said, tmp_path))
    lines = [
        json.loads(line)
        for line in manifest.file(tmp_path / "scores", "reviews.jsonl").read_text().splitlines()
    ]
    assert [
        (one["model"], one["benchmark"], one["item"]["language"], one["item"]["id"]) for one in lines
    ] == [("model", "llava", language, item) for language in ("en", "zh") for item in "012"]
    assert lines[0]["item"]["answer"] == "I see a dog. 0" and "One dog." in lines[0]["item"]["context"]
    [review] = lines[0]["reviews"]
    assert (review["reference_score"], review["answer_score"]) == (8, 6)
    assert (review["text"], review["failure"], review["order"]) == ("8 6\nbecause", "", "reference_first")


def test_the_cost_is_told_before_the_models_have_answered_and_again_when_the_judge_has(
    llava: Path, said: Path, tmp_path: Path
) -> None:
    with serving(lambda _: Answer(text="8 6\nbecause")) as (chat, url):
        told = spec(url, llava, said, tmp_path)
        later = told.model_copy(update={"answers": {"model": said, "other": tmp_path / "to come"}})
        before = estimated(later)
        assert before.startswith("a-judge: 12 requests to make (0 more were answered before), about ")
        assert before.endswith(
            "; the answers of other, still to come, are taken to be as long as the references"
        )
        assert estimated(told).startswith("a-judge: 6 requests to make")
        assert chat.calls == []
        execute(STAGE, told)
        assert estimated(told).startswith("a-judge: 0 requests to make (6 more were answered before)")
    assert "no server" in estimated(told.model_copy(update={"judge": Judge()}))


def test_a_pack_of_one_judges_reviews_shows_in_the_scores_of_another_how_far_that_is_off(
    llava: Path, said: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored, made = str(tmp_path / "scores"), tmp_path / "pack.jsonl"
    with serving(lambda _: Answer(text="8 6\nbecause", model="the-first")) as (chat, url):
        execute(STAGE, spec(url, llava, said, tmp_path))
        assert pack.main([scored, "--benchmark", "llava", "--most", "4", str(made)]) == 0
        assert "4 items with the reviews of the-first" in capsys.readouterr().out
        chat.script = lambda _: Answer(text="8 7\nbecause", model="the-second")
        told = spec(url, llava, said, tmp_path / "other")
        told = told.model_copy(update={"calibration": {"llava": made}, "most_judge_failures": 0.5})
        found = execute(STAGE, told).metrics["drift"]["llava"]
        assert found["judges"] == {"stored": ["the-first"], "now": ["the-second"]}
        assert (found["items"], found["bias_of_answers"], found["bias_of_references"]) == (4, 1.0, 0.0)
        document = json.loads(manifest.file(tmp_path / "other/scores", "scores.json").read_text())
        assert document["drift"]["llava"] == found
        with pytest.raises(BadInput, match="no judge rates 'mmmb'"):
            execute(STAGE, told.model_copy(update={"calibration": {"mmmb": made}}))
    with pytest.raises(ValueError, match="no other drifts"):
        ScoreAnswersSpec.model_validate({**told.model_dump(), "judge": {}})
    assert pack.main([scored, "--benchmark", "llava", str(made)]) == BAD_INPUT_EXIT_CODE
    assert "a pack is never changed" in capsys.readouterr().err
    assert pack.main([scored, "--benchmark", "unimm", str(tmp_path / "new")]) == BAD_INPUT_EXIT_CODE
    assert "llava en of model, llava zh of model" in capsys.readouterr().err


def test_an_overlap_is_no_judge_that_another_could_be_held_against(
    llava: Path, said: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(
        STAGE,
        ScoreAnswersSpec(output=tmp_path / "scores", answers={"model": said}, benchmarks={"llava": llava}),
    )
    arguments = [str(tmp_path / "scores"), "--benchmark", "llava", str(tmp_path / "pack")]
    assert pack.main(arguments) == BAD_INPUT_EXIT_CODE
    assert "reference_overlap" in capsys.readouterr().err and not (tmp_path / "pack").exists()


def test_the_test_set_is_put_into_a_further_language_by_the_translator(tmp_path: Path) -> None:
    pairs = [row for row in few_sentences([grammar("en"), grammar("zh")]) if row["kind"] == "question"][:3]
    (tmp_path / "files").mkdir()
    published.llava(tmp_path / "files", "en")
    path = tmp_path / "files/llava_en.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    published.lines(path, [{**row, "text": pair["en"]} for row, pair in zip(rows, pairs, strict=True)])
    made = execute(
        FILES,
        BenchmarkFilesSpec(
            output=tmp_path / "table", benchmark="llava", images=published.images(tmp_path / "images"),
            files={file.name: file for file in (tmp_path / "files").iterdir()},
            translate_into=["zh"], translator=short_sentence_translator(),
        ),
    )  # fmt: skip
    translated = {one.item: one for one in suite.load([tmp_path / "table"], ["zh"])}
    assert [translated[str(place)].question for place in range(3)] == [pair["zh"] for pair in pairs]
    # What the translator never learnt may be rejected by its guard; then it stays English, and is counted.
    assert all(reason.startswith("zh_") for reason in made.metrics["texts_left_in_english"])
    left = left_in_english(tmp_path / "table")["zh"]
    rejected = sum(made.metrics["texts_left_in_english"].values())
    assert left.english >= rejected > 0 and left.texts - left.english >= 3
    blocked = checks.left_in_english(0.1).judge(tmp_path / "table", made)
    assert (
        not blocked.passed and f"zh {left.share:.1%} ({left.english} of {left.texts} texts)" in blocked.words
    )
    assert checks.left_in_english(1.0).judge(tmp_path / "table", made).passed


def test_the_macro_mean_weighs_categories_alike_with_the_error_of_images_that_they_share() -> None:
    generator = np.random.default_rng(5)
    images = {f"{place}": f"image {place % 10}" for place in range(30)}
    scored = [
        Review(
            id=item, language="en", category=("conv", "detail")[int(item) % 3 == 0], order="reference_first",
            reference_score=float(generator.integers(7, 11)), answer_score=float(generator.integers(2, 10)),
            failure="", text="", judge="j",
        )
        for item in images
    ]  # fmt: skip
    asked = [
        Asked("llava", "en", item, 0, "", "", (), "", "conv", b"", image) for item, image in images.items()
    ]
    by = Judge(server=Server(base_url="http://127.0.0.1:1/v1", model="j"))

    def macro(of: list[Review]) -> Any:
        return judged.document(catalogue()["llava"], asked, of, by)["macro"]

    found = macro(scored)
    ratios = [
        sum(one.answer_score or 0 for one in of) / sum(one.reference_score or 0 for one in of)
        for name in ("conv", "detail")
        for of in [[one for one in scored if one.category == name]]
    ]
    assert found["value"] == pytest.approx(sum(ratios) / 2, abs=1e-4)
    # The jackknife over images asks no formula.
    without = [
        macro([one for one in scored if images[one.id] != image])["value"]
        for image in sorted(set(images.values()))
    ]
    jackknife = np.sqrt(9 / 10 * np.sum((np.array(without) - np.mean(without)) ** 2))
    assert found["standard_error"] == pytest.approx(jackknife, rel=0.25)
    assert (found["n"], found["clusters"]) == (30, 10)
