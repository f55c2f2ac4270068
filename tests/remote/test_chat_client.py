"""The client of language model servers: what misbehaves on the wire costs a retry, never an answer or a secret."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.errors import BadInput, Interrupted
from pipelines.remote.budget import tokens_of
from pipelines.remote.cache import Cache, key_of
from pipelines.remote.client import ChatClient, Failure, Reply
from pipelines.remote.spec import Budget, Conduct, Server
from pipelines.remote.transport import retry_after
from tests.chat_server import Answer, Call, Script, serving

FAST = {"backoff_seconds": 0.01, "request_seconds": 30.0, "outage_seconds": 60.0, "attempts": 3}
QUESTIONS = [f"question {number}" for number in range(12)]


def echo(call: Call) -> Answer:
    return Answer(f"answer to {call.prompt}")


def first_then_echo(first: Answer) -> Script:
    """Every question's first attempt gets `first`, later ones an answer."""
    return lambda call: first if call.nth == 0 else echo(call)


def client(url: str, folder: Path, *, account: str = "test", server: dict[str, Any] | None = None, **conduct: Any) -> ChatClient:  # fmt: skip
    named = Server(base_url=url, model="judge-2026-01-01", **(server or {}))
    return ChatClient(named, Conduct(**{**FAST, **conduct}), folder / "cache.sqlite", account=account)


def texts(results: list[Reply | Failure]) -> list[str]:
    return [result.text if isinstance(result, Reply) else result.reason for result in results]


RIGHT = [f"answer to {question}" for question in QUESTIONS]


@pytest.mark.parametrize(
    "fault",
    [
        Answer(status=500),
        Answer(status=503),
        Answer(status=429, headers={"Retry-After": "0.05"}),
        Answer(status=408),
        Answer("a long answer", cut_after=40),
        Answer(body=b"<html>not json</html>"),
        Answer(body=b'{"choices": []}'),
        Answer(body=b'{"choices": [{"message": {"content": null}}]}'),
        Answer(body=b"[" * 100_000),
        Answer(body=b'{"choices": "' + b"x" * 6_000_000),
        Answer(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}),
    ],
    ids=[
        "500",
        "503",
        "429",
        "408",
        "truncated",
        "html",
        "no choice",
        "no text",
        "deep",
        "endless",
        "compressed",
    ],
)
def test_a_failed_attempt_is_made_again_and_order_is_kept(tmp_path: Path, fault: Answer) -> None:
    with serving(first_then_echo(fault)) as (chat, url):
        results = client(url, tmp_path).ask(QUESTIONS, "test 1")
    assert texts(results) == RIGHT
    assert len(chat.calls) == 2 * len(QUESTIONS)
    assert {result.attempts for result in results} == {2}


def test_an_answer_that_does_not_come_is_given_up_in_time_and_asked_again(tmp_path: Path) -> None:
    with serving(first_then_echo(Answer(hold=True))) as (_, url):
        results = client(url, tmp_path, request_seconds=0.4, attempts=9).ask(QUESTIONS[:4], "test 1")
    assert texts(results) == RIGHT[:4]


def test_what_was_answered_is_never_asked_again_by_any_later_client(tmp_path: Path) -> None:
    with serving(echo) as (chat, url):
        first = client(url, tmp_path).ask(QUESTIONS[:6] * 2, "test 1")
        assert len(chat.calls) == 6
        second = client(url, tmp_path).ask(QUESTIONS, "test 1")
        assert len(chat.calls) == 12
    assert texts(first) == RIGHT[:6] * 2
    assert texts(second) == RIGHT
    assert [reply.kept for reply in second] == [True] * 6 + [False] * 6


def test_everything_that_matters_is_in_the_key(tmp_path: Path) -> None:
    with serving(echo) as (_, url):
        base = client(url, tmp_path)
        others = [
            client(url + "/other", tmp_path),
            client(url, tmp_path, server={"temperature": 0.2}),
            client(url, tmp_path, server={"max_tokens": 5}),
            client(url, tmp_path, server={"seed": 1}),
            client(url, tmp_path, server={"system": "Be brief."}),
            client(url, tmp_path, server={"extra_body": {"top_k": 1}}),
        ]
    keys = [one.key("q", "kind 1") for one in [base, *others]] + [base.key("q", "kind 2")]
    keys.append(base.key("q ", "kind 1"))
    assert len(set(keys)) == len(keys)
    assert client(url, tmp_path, attempts=9, concurrency=1).key("q", "kind 1") == base.key("q", "kind 1")


def test_failures_stand_apart_and_are_asked_again_next_time(tmp_path: Path) -> None:
    def refuses_one(call: Call) -> Answer:
        return Answer("policy", status=400) if call.prompt == QUESTIONS[3] else echo(call)

    with serving(refuses_one) as (chat, url):
        results = client(url, tmp_path).ask(QUESTIONS, "test 1")
        assert isinstance(results[3], Failure)
        assert (results[3].reason, results[3].attempts) == ("http_400", 1)
        chat.script = echo
        assert texts(client(url, tmp_path).ask(QUESTIONS, "test 1")) == RIGHT
        assert len(chat.calls) == len(QUESTIONS) + 1


def test_an_answer_that_is_cut_off_or_empty_is_no_answer_and_is_not_kept(tmp_path: Path) -> None:
    def odd(call: Call) -> Answer:
        number = int(call.prompt.split()[1])
        return [Answer("half", finish_reason="length"), Answer("  "), echo(call)][number % 3]

    with serving(odd) as (chat, url):
        results = client(url, tmp_path).ask(QUESTIONS[:3], "test 1")
        assert texts(results) == ["reply_length", "empty_reply", RIGHT[2]]
        client(url, tmp_path).ask(QUESTIONS[:3], "test 1")
    assert len(chat.calls) == 5


def test_at_a_temperature_an_unfit_answer_is_drawn_again(tmp_path: Path) -> None:
    with serving(first_then_echo(Answer(" "))) as (_, url):
        warm = client(url, tmp_path, server={"temperature": 0.7})
        assert texts(warm.ask(QUESTIONS[:2], "test 1")) == RIGHT[:2]


def test_retry_after_is_honoured_by_all_requests_together(tmp_path: Path) -> None:
    arrivals: list[float] = []

    def busy_once(call: Call) -> Answer:
        arrivals.append(time.monotonic())
        return Answer(status=429, headers={"Retry-After": "0.4"}) if call.number == 0 else echo(call)

    with serving(busy_once) as (_, url):
        results = client(url, tmp_path, concurrency=1).ask(QUESTIONS[:3], "test 1")
    assert texts(results) == RIGHT[:3]
    assert arrivals[1] - arrivals[0] >= 0.39


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
    ],
)
def test_retry_after_is_read_in_each_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, 60.0) == seconds


def test_a_server_that_is_away_for_too_long_stops_the_run_and_a_rerun_goes_on(tmp_path: Path) -> None:
    def breaks_down(call: Call) -> Answer:
        return echo(call) if call.number < 5 else Answer(status=503)

    with serving(breaks_down) as (chat, url):
        asking = client(url, tmp_path, concurrency=2, outage_seconds=0.5)
        with pytest.raises(Interrupted, match=r"gave no answer .*5 answers are kept; run the same command"):
            asking.ask(QUESTIONS, "test 1")
        chat.script = echo
        before = len(chat.calls)
        assert texts(client(url, tmp_path).ask(QUESTIONS, "test 1")) == RIGHT
        assert len(chat.calls) - before == len(QUESTIONS) - 5


def test_a_server_that_is_not_there_at_all_stops_the_run(tmp_path: Path) -> None:
    with serving(echo) as (_, url):
        pass
    with pytest.raises(Interrupted, match="no answer"):
        client(url, tmp_path, outage_seconds=0.3).ask(QUESTIONS, "test 1")


def test_a_server_that_asks_to_wait_longer_than_an_outage_stops_the_run_at_once(tmp_path: Path) -> None:
    with (
        serving(lambda _: Answer(status=429, headers={"Retry-After": "3600"})) as (_, url),
        pytest.raises(Interrupted, match="3600 s more"),
    ):
        client(url, tmp_path).ask(QUESTIONS, "test 1")


def test_a_server_that_fails_one_request_after_another_stops_the_run(tmp_path: Path) -> None:
    with serving(lambda _: Answer(body=b"nonsense")) as (chat, url):
        asking = client(url, tmp_path, most_failures_in_a_row=4, concurrency=2)
        with pytest.raises(Interrupted, match=r"4 requests .* failed in a row.*not_a_completion"):
            asking.ask([f"question {number}" for number in range(100)], "test 1")
    assert len(chat.calls) < 20


@pytest.mark.parametrize("status", [401, 403, 404, 307])
def test_a_wrong_key_model_or_address_is_told_at_once(tmp_path: Path, status: int) -> None:
    answer = Answer("wrong", status=status, headers={"Location": "http://127.0.0.1:1/elsewhere"})
    with serving(lambda _: answer) as (chat, url), pytest.raises(BadInput, match=f"HTTP {status}"):
        client(url, tmp_path, concurrency=1).ask(QUESTIONS, "test 1")
    assert len(chat.calls) == 1


def test_a_key_is_sent_and_stands_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-very-secret-0123456789"
    monkeypatch.setenv("JUDGE_KEY", secret)

    def tells(call: Call) -> Answer:
        return Answer(f"not with {call.headers['Authorization']}", status=400)

    with serving(echo) as (chat, url):
        keyed = client(url, tmp_path, server={"api_key_env": "JUDGE_KEY"}, attempts=1)
        keyed.ask(QUESTIONS[:1], "test 1")
        assert chat.calls[0].headers["Authorization"] == f"Bearer {secret}"
        chat.script = tells
        failure = keyed.ask(QUESTIONS[1:2], "test 1")[0]
        assert isinstance(failure, Failure)
        assert "***" in failure.detail
        assert secret not in failure.detail
        chat.script = lambda call: Answer(f"bad {call.headers['Authorization']}", status=401)
        with pytest.raises(BadInput) as told:
            keyed.ask(QUESTIONS[2:3], "test 1")
        assert secret not in str(told.value)
        keyed.close()
    assert all(secret.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def test_a_key_in_the_wrong_place_is_refused_without_being_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in (
        {"base_url": "http://x/v1", "api_key_env": "sk-secret-1"},
        {"base_url": "http://me:sk-secret-1@x/v1"},
    ):
        with pytest.raises(ValidationError) as told:
            Server(model="m", **wrong)
        assert "sk-secret-1" not in str(told.value)
    monkeypatch.delenv("ABSENT_KEY", raising=False)
    with pytest.raises(BadInput, match="ABSENT_KEY"):
        client("http://127.0.0.1:1/v1", tmp_path, server={"api_key_env": "ABSENT_KEY"})


def test_the_budget_is_never_passed_and_a_raised_one_goes_on(tmp_path: Path) -> None:
    with serving(echo) as (chat, url):
        with pytest.raises(BadInput, match=r"5 of 5 requests are made(.|\n)*raise the budget"):
            client(url, tmp_path, budget=Budget(most_requests=5)).ask(QUESTIONS, "test 1")
        assert len(chat.calls) == 5
        with pytest.raises(BadInput, match="5 of 5"):
            client(url, tmp_path, budget=Budget(most_requests=5)).ask(QUESTIONS, "test 1")
        assert len(chat.calls) == 5
        # Another table has its own.
        client(url, tmp_path, account="other", budget=Budget(most_requests=1)).ask(["new"], "test 1")
        raised = client(url, tmp_path, budget=Budget(most_requests=12))
        assert texts(raised.ask(QUESTIONS, "test 1")) == RIGHT
    assert len(chat.calls) == 13


def test_tokens_are_counted_at_their_worst_until_the_server_tells_them(tmp_path: Path) -> None:
    worst = tokens_of("", QUESTIONS[0]) + 20
    with serving(echo) as (chat, url):
        asking = client(
            url, tmp_path, server={"max_tokens": 20}, concurrency=4, budget=Budget(most_tokens=30 + worst)
        )
        with pytest.raises(BadInput, match="tokens are used"):
            asking.ask(QUESTIONS, "test 1")
    # Each request turned out at 15 tokens; a third leaves too little for the worst of a fourth.
    assert len(chat.calls) == 3


def test_the_estimate_asks_nothing_and_leaves_out_what_is_kept(tmp_path: Path) -> None:
    budget = Budget(prompt_price=1.0, answer_price=10.0)
    with serving(echo) as (chat, url):
        asking = client(url, tmp_path, server={"max_tokens": 100}, budget=budget)
        asking.ask(QUESTIONS[:2], "test 1")
        estimate = asking.estimate([*QUESTIONS, *QUESTIONS], "test 1")
    assert len(chat.calls) == 2
    assert (estimate.requests, estimate.kept, estimate.most_answer_tokens) == (10, 2, 1000)
    assert estimate.most_cost == pytest.approx((estimate.prompt_tokens + 10 * 1000) / 1e6)
    assert "10 requests" in estimate.words()


def test_no_more_requests_are_under_way_than_allowed(tmp_path: Path) -> None:
    def slow(call: Call) -> Answer:
        time.sleep(0.02)
        return echo(call)

    with serving(slow) as (chat, url):
        client(url, tmp_path, concurrency=3).ask(QUESTIONS, "test 1")
    assert chat.most_together == 3


def test_a_damaged_cache_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "cache.sqlite").write_bytes(b"this is no database, but long enough to be read as one" * 100)
    with pytest.raises(BadInput, match="damaged"):
        Cache(tmp_path / "cache.sqlite")


def test_the_first_entry_of_a_key_stays(tmp_path: Path) -> None:
    key = key_of("a", {})
    with Cache(tmp_path / "one") as first, Cache(tmp_path / "one") as second:
        first.put({key: "1"})
        second.put({key: "2"})
        assert first.get([key, key_of("b", {})]) == {key: "1"}
