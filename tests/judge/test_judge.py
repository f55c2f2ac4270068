"""The judge: what it is asked is pinned, what it writes is read or counted as a failure, and a rerun goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.errors import BadInput, Interrupted
from pipelines.judge import calibration
from pipelines.judge.aggregate import scored
from pipelines.judge.items import Item, Review, read_items, read_pack, write_items, write_pack
from pipelines.judge.judging import estimate, judge
from pipelines.judge.prompts import Rule, pair_prompt, rating_prompt
from pipelines.judge.reading import scores
from pipelines.judge.spec import OVERLAP, STAGE, Judge, JudgeSpec
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.remote.spec import Conduct, Server
from pipelines.stage import execute
from tests.chat_server import Answer, Call, serving

CATEGORIES = ("complex", "conv", "detail")
ITEMS = [
    Item(
        id=f"q{number}",
        language=("en", "zh")[number % 2],
        category=CATEGORIES[number % 3],
        question=f"What is in picture {number}?",
        reference=f"Picture {number} shows a red circle.",
        answer=f"In picture {number} there is a circle.",
        context="A circle.\n\ncircle: [0.1, 0.1, 0.4, 0.4]",
        image=f"image-{number // 2}",
    )
    for number in range(12)
]
FAST = Conduct(backoff_seconds=0.01, request_seconds=1.0, outage_seconds=60.0, attempts=8)


def served(url: str, **changes: Any) -> Judge:
    return Judge(server=Server(base_url=url, model="judge-2026-01-01", max_tokens=64), **changes)


def reviewed(items: list[Item], by: Judge, folder: Path, **conduct: Any) -> list[Review]:
    asked = FAST.model_copy(update=conduct)
    return judge(items, by, folder / "cache.sqlite", Progress("judge", silent=True), conduct=asked)


def test_a_pair_is_put_as_llava_puts_it_with_the_reference_first() -> None:
    item = Item(
        "1", "en", "conv", "Who?", "The reference.", "The answer.", context="A caption.\n\ncat: [0, 1]"
    )
    assert pair_prompt(item, Rule("Rate.", "Assistant"), "reference_first") == (
        "[Context]\nA caption.\n\ncat: [0, 1]\n\n[Question]\nWho?\n\n[Assistant 1]\nThe reference.\n\n"
        "[End of Assistant 1]\n\n[Assistant 2]\nThe answer.\n\n[End of Assistant 2]\n\n[System]\nRate.\n\n"
    )
    swapped = pair_prompt(item, Rule("Rate.", "Assistant"), "answer_first")
    assert swapped.index("The answer.") < swapped.index("The reference.")


def test_a_rating_is_asked_against_the_expected_answer_and_what_people_said() -> None:
    item = Item(
        "1", "en", "vqa", "Who?", "a cat", "a dog", human_answers=("cat", "kitten"), rationale="whiskers"
    )
    assert rating_prompt(item, Rule("Rate.")) == (
        "[Question]\nWho?\n\n[Response]\na dog\n\n[System]\nRate.\n\n[Expected answer]\na cat\n\n"
        "[Answers of people]\ncat; kitten\n\n[Rationale]\nwhiskers\n\n"
    )


@pytest.mark.parametrize(
    ("text", "published", "tolerant"),
    [
        ("8 7\nBecause.", [8, 7], [8, 7]),
        ("8,7", [8, 7], [8, 7]),
        ("8.5 7", [8.5, 7], [8.5, 7]),
        ("8, 7", [], [8, 7]),
        ("8 7 ", [], [8, 7]),
        ("\n8 7", [], [8, 7]),
        ("8/10 7/10", [], [8, 7]),
        ("**8 7**", [], [8, 7]),
        ("Assistant 1: 8, Assistant 2: 7", [], [8, 7]),
        ("助手1：8 助手2：7", [], [8, 7]),
        ("８　７", [], [8, 7]),
        ("The first is better than the second.", [], []),
        ("I rate them 8 and 7.", [], []),
        ("8", [], []),
        ("8 7 9", [], []),
        ("0 11", [0, 11], []),
        ("nan 7", [], []),
        ("", [], []),
    ],
)
def test_two_numbers_are_read_or_it_is_a_failure(
    text: str, published: list[float], tolerant: list[float]
) -> None:
    assert scores(text, "pair", "published")[0] == published
    found, why = scores(text, "pair", "tolerant")
    assert found == tolerant
    assert bool(why) == (not found)


@pytest.mark.parametrize(("text", "found"), [("4", [4]), ("Score: 5/5\nfine", [5]), ("6", []), ("four", [])])
def test_a_rating_is_one_number_from_1_to_5(text: str, found: list[float]) -> None:
    assert scores(text, "rating", "tolerant")[0] == found


def second_is_worse(call: Call) -> Answer:
    """A judge that likes what stands first by one point."""
    return Answer("9 7\nThe first." if call.prompt.index("shows") < call.prompt.index("there is") else "8 8")


def misbehaving(call: Call) -> Answer:
    """Every item's first attempt goes wrong in another way."""
    faults = [
        Answer(status=429, headers={"Retry-After": "0.02"}),
        Answer(status=500),
        Answer("9 7", cut_after=30),
        Answer(body=b"{}"),
        Answer(hold=True),
    ]
    return faults[call.number % len(faults)] if call.nth == 0 else second_is_worse(call)


def test_a_misbehaving_server_costs_attempts_and_no_review(tmp_path: Path) -> None:
    with serving(misbehaving) as (chat, url):
        reviews = reviewed(ITEMS, served(url), tmp_path)
        asked = len(chat.calls)
        again = reviewed(ITEMS, served(url), tmp_path)
        assert len(chat.calls) == asked
    assert [(one.id, one.order) for one in reviews] == [
        *((item.id, "reference_first") for item in ITEMS),
        *((item.id, "answer_first") for item in ITEMS),
    ]
    assert {(one.order, one.reference_score, one.answer_score) for one in reviews} == {
        ("reference_first", 9, 7),
        ("answer_first", 8, 8),
    }
    assert {one.failure for one in reviews} == {""}
    assert {one.judge for one in reviews} == {"served-model"}
    assert all(one.kept for one in again)


def test_failures_are_reported_apart_and_enter_no_mean(tmp_path: Path) -> None:
    def silent_on_some(call: Call) -> Answer:
        if "picture 4?" in call.prompt:
            return Answer("I would rather not say.")
        return Answer("refused", status=400) if "picture 5?" in call.prompt else second_is_worse(call)

    with serving(silent_on_some) as (_, url):
        reviews = reviewed(ITEMS, served(url, swap=False), tmp_path)
    figures = scored(reviews, "pair")
    assert figures["failures"] == {
        "count": 2,
        "share": round(2 / 12, 4),
        "reasons": {"http_400": 1, "unreadable_review": 1},
    }
    assert figures["pooled"]["score"] == round(7 / 9 * 100, 2)
    assert (figures["pooled"]["judged"], figures["pooled"]["failed"]) == (10, 2)


def test_a_category_in_which_all_failed_has_no_score_and_leaves_the_macro_mean() -> None:
    reviews = [
        *(review(f"a{number}", "conv", 8, 4) for number in range(2)),
        *(
            Review(f"b{n}", "en", "detail", "reference_first", None, None, "timeout", "", "j")
            for n in range(2)
        ),
    ]
    figures = scored(reviews, "pair")
    assert figures["categories"]["detail"]["score"] is None
    assert figures["macro"] == {"score": 50.0, "categories": 1}
    assert figures["pooled"]["score"] == 50.0


def review(name: str, category: str, reference: float, answer: float, **changes: Any) -> Review:
    settings: dict[str, Any] = {"order": "reference_first", "language": "en", "judge": "j"}
    return Review(
        id=name, category=category, reference_score=reference, answer_score=answer, failure="", text="",
        **{**settings, **changes},
    )  # fmt: skip


def test_pooled_and_macro_are_each_what_their_name_says() -> None:
    reviews = [review("1", "conv", 10, 9), review("2", "conv", 8, 9), review("3", "detail", 4, 1)]
    figures = scored(reviews, "pair")
    assert figures["pooled"]["score"] == round((19 / 3) / (22 / 3) * 100, 2)
    assert figures["macro"]["score"] == round((100 + 25) / 2, 2)
    assert figures["pooled"]["score_as_published"] == round(round(19 / 3, 3) / round(22 / 3, 3) * 100, 1)


def test_the_bias_for_a_place_is_measured_over_both_orders(tmp_path: Path) -> None:
    with serving(second_is_worse) as (_, url):
        bias = scored(reviewed(ITEMS, served(url), tmp_path), "pair")["place_bias"]
    assert bias == {
        "items": 12,
        "answer_gains_by_standing_first": 1.0,
        "reference_gains_by_standing_first": 1.0,
        "preferences_turned": 0.0,
        "score_over_both_orders": round(7.5 / 8.5 * 100, 2),
    }


def test_a_judge_that_is_down_stops_with_a_clear_message_and_a_rerun_continues(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", ITEMS)

    def breaks_down(call: Call) -> Answer:
        return second_is_worse(call) if call.number < 7 else Answer(status=503)

    with serving(breaks_down) as (chat, url):
        spec = JudgeSpec(
            output=tmp_path / "out", items=tmp_path / "items.jsonl", judge=served(url), cache=tmp_path / "cache",
            conduct=FAST.model_copy(update={"concurrency": 2, "outage_seconds": 0.6}),
        )  # fmt: skip
        with pytest.raises(Interrupted, match="7 answers are kept"):
            execute(STAGE, spec)
        assert not manifest.exists(tmp_path / "out")
        chat.script = second_is_worse
        before = len(chat.calls)
        made = execute(STAGE, spec)
        assert len(chat.calls) - before == 2 * len(ITEMS) - 7
    document = json.loads(manifest.file(tmp_path / "out", "judgement.json").read_text())
    assert document["languages"]["zh"]["pooled"]["score"] == round(7 / 9 * 100, 2)
    assert document["is_a_model"]
    assert made.ledger is not None
    assert made.ledger.kept == len(ITEMS)


def test_too_many_failures_are_not_published(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", ITEMS)
    with serving(lambda _: Answer("No idea.")) as (_, url):
        spec = JudgeSpec(
            output=tmp_path / "out", items=tmp_path / "items.jsonl", judge=served(url), cache=tmp_path / "cache",
            conduct=FAST.model_copy(update={"most_failures_in_a_row": 1000}),
        )  # fmt: skip
        with pytest.raises(Interrupted, match=r"12 of 12 items .* got no review \(unreadable_review"):
            execute(STAGE, spec)
    assert not manifest.exists(tmp_path / "out")


def test_a_failure_below_the_limit_is_asked_for_again_by_the_next_run(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", ITEMS)

    def silent_once(call: Call) -> Answer:
        return Answer("No idea.") if "picture 4?" in call.prompt else second_is_worse(call)

    with serving(silent_once) as (chat, url):
        spec = JudgeSpec(
            output=tmp_path / "out", items=tmp_path / "items.jsonl", judge=served(url, swap=False),
            cache=tmp_path / "cache", conduct=FAST, most_failures=0.2,
        )  # fmt: skip
        assert execute(STAGE, spec).incomplete == "1 review of the judge failed"
        chat.script = second_is_worse
        made = execute(STAGE, spec)
        assert len(chat.calls) == len(ITEMS) + 1
    assert made.incomplete == "" and made.ledger is not None and made.ledger.kept == len(ITEMS)


def test_the_estimate_counts_both_orders(tmp_path: Path) -> None:
    by = served("http://127.0.0.1:9/v1")
    found = estimate(ITEMS, by, tmp_path / "cache")
    assert found is not None
    assert (found.requests, found.most_answer_tokens) == (24, 24 * 64)
    assert estimate(ITEMS, Judge(), tmp_path / "cache") is None


def test_the_overlap_needs_no_server_and_is_named_for_what_it_is(tmp_path: Path) -> None:
    items = [
        Item("same", "zh", "conv", "？", "一个红色的圆形。", "一个红色的圆形。"),
        Item("part", "zh", "conv", "？", "一个红色的圆形。", "圆形"),
        Item("none", "zh", "conv", "？", "一个红色的圆形。", "blue"),
    ]
    write_items(tmp_path / "items.jsonl", items)
    execute(
        STAGE, JudgeSpec(output=tmp_path / "out", items=tmp_path / "items.jsonl", cache=tmp_path / "cache")
    )
    document = json.loads(manifest.file(tmp_path / "out", "judgement.json").read_text())
    assert (document["judge"], document["is_a_model"]) == (OVERLAP, False)
    assert "chrF" in document["signature"]
    lines = manifest.file(tmp_path / "out", "reviews.jsonl").read_text().splitlines()
    found = {one["id"]: one["answer_score"] for one in map(json.loads, lines)}
    assert found["same"] == 10.0
    assert 0 < found["part"] < 10
    assert found["none"] == 0.0
    assert not (tmp_path / "cache").exists()


def test_a_calibration_pack_shows_how_far_another_judge_is_off(tmp_path: Path) -> None:
    with serving(second_is_worse) as (chat, url):
        stored = reviewed(ITEMS, served(url, swap=False), tmp_path)
        write_pack(tmp_path / "pack.jsonl", ITEMS, stored)
        write_items(tmp_path / "items.jsonl", ITEMS)

        def generous(call: Call) -> Answer:
            # One point more for each answer, and the better one of the two from picture 8 on.
            turned = any(f"picture {number}?" in call.prompt for number in (8, 9, 10, 11))
            return Answer("9 10" if turned else "9 8", model="another-judge")

        chat.script = generous
        spec = JudgeSpec(
            output=tmp_path / "out", items=tmp_path / "items.jsonl", calibration=tmp_path / "pack.jsonl",
            judge=served(url, swap=False), cache=tmp_path / "other-cache", conduct=FAST,
        )  # fmt: skip
        drift = execute(STAGE, spec).metrics["drift"]
    assert drift["judges"] == {"stored": ["served-model"], "now": ["another-judge"]}
    assert (drift["items"], drift["flips"]) == (12, round(4 / 12, 4))
    assert drift["bias_of_answers"] == round((8 * 1 + 4 * 3) / 12, 4)
    assert drift["bias_of_references"] == 0.0
    assert (drift["score_stored"], drift["spearman"]) == (round(7 / 9 * 100, 2), None)


def test_equal_judges_do_not_drift_and_ranks_are_shared_by_equal_scores() -> None:
    stored = [review(str(n), "conv", 8, score) for n, score in enumerate([3, 5, 5, 9])]
    found = calibration.drift(stored, stored)
    assert (found["spearman"], found["bias_of_answers"], found["flips"]) == (1.0, 0.0, 0.0)
    assert calibration.spearman(np.array([1.0, 2, 2, 4]), np.array([4.0, 3, 3, 1])) == -1.0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "no item"),
        ('{"id": "1"}', "no item"),
        ("[]", "no item"),
        ("", "nothing to judge"),
    ],
)
def test_items_that_are_none_are_refused_by_line(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "items.jsonl").write_text(line + "\n")
    with pytest.raises(BadInput, match=words):
        read_items(tmp_path / "items.jsonl")


def test_an_id_that_stands_twice_and_a_pack_without_reviews_are_refused(tmp_path: Path) -> None:
    write_items(tmp_path / "twice.jsonl", [ITEMS[0], ITEMS[0]])
    with pytest.raises(BadInput, match="twice"):
        read_items(tmp_path / "twice.jsonl")
    write_items(tmp_path / "bare.jsonl", ITEMS)
    with pytest.raises(BadInput, match="no `review`"):
        read_pack(tmp_path / "bare.jsonl")


def test_published_rules_are_taken_by_language_and_category(tmp_path: Path) -> None:
    rules = {category: {"role": "Helfer", "prompt": f"Rule of {category}."} for category in CATEGORIES}
    (tmp_path / "rule.json").write_text(json.dumps(rules))
    with serving(lambda _: Answer("9 7")) as (chat, url):
        judge(
            ITEMS[:1], served(url, swap=False), tmp_path / "cache", Progress("judge", silent=True),
            rules={"en": tmp_path / "rule.json"}, conduct=FAST,
        )  # fmt: skip
    assert "[End of Helfer 2]\n\n[System]\nRule of complex." in chat.calls[0].prompt
    (tmp_path / "rule.json").write_text('{"other": {"prompt": "x"}}')
    with pytest.raises(BadInput, match="'complex'"):
        estimate(
            ITEMS, served("http://127.0.0.1:9/v1"), tmp_path / "cache", rules={"en": tmp_path / "rule.json"}
        )
