"""Answers with their table in an object store: a pod on another node goes on where the lost one was."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.answer.spec import STAGE, AnswerParameters, AnswerSpec
from pipelines.benchmarks import answers
from pipelines.errors import Interrupted
from pipelines.lake import location
from pipelines.remote.spec import Conduct, Server
from pipelines.stage import execute
from pipelines.world import benchmark
from tests.benchmarks.conftest import publish
from tests.chat_server import Answer, Call, serving

BEFORE, LATER = 9, 17
"""How many requests the first and the second server answer."""


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    (tmp_path / "world/made").mkdir(parents=True)
    drawn = benchmark.draw_items(40, seed=1, choice=False)
    benchmark.write_open_questions(drawn, "en", ["en"], tmp_path / "world/made/open_en.parquet")
    return publish(tmp_path / "world", "world")


def test_another_node_asks_only_what_the_lost_one_had_not(
    s3: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = BEFORE

    def behave(call: Call) -> Answer:
        gone = Answer(status=503, headers={"Retry-After": "3600"})
        return gone if call.number >= most else Answer(text=f"answer {call.number}")

    def on(node: str, url: str) -> AnswerSpec:
        """The spec on a node, whose disk nothing of the others is on."""
        monkeypatch.setenv("LAKE_CACHE", str(tmp_path / node))
        return AnswerSpec(
            output=s3 / "answers", server=Server(base_url=url, model="some-vlm"), benchmarks={"world": questions},
            parameters=AnswerParameters(languages=["en"]), batch_size=1, cache=tmp_path / node / "requests.sqlite",
            conduct=Conduct(concurrency=1, attempts=1),
        )  # fmt: skip

    with serving(behave) as (server, url):
        with pytest.raises(Interrupted):
            execute(STAGE, on("first", url))
        refused, most = 1, BEFORE + 1 + LATER
        with pytest.raises(Interrupted):
            execute(STAGE, on("second", url))
        # Back on the first node, whose own journal is behind: the longer one counts.
        refused, most = 2, 1000
        made = execute(STAGE, on("first", url))
        assert len(server.calls) == 40 + refused
    assert made.metrics["resumed_from"] == BEFORE + LATER
    said = answers.read(s3 / "answers")
    assert len({row["answer"] for row in said.values()}) == 40
    assert not [path for path in location.listing(s3 / "answers") if "_work" in path.parts]
