"""Instruction data is translated turn by turn: what must stay stays, what cannot be translated is counted, order holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.conversations import run as stage
from pipelines.conversations.spec import STAGE, ConversationParameters, ConversationSpec
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.remote.spec import Conduct, Server
from pipelines.stage import execute
from pipelines.translate.spec import SERVER_FILE, RemoteTranslation
from pipelines.world.grammar import grammar
from pipelines.world.text import few_sentences
from tests import tables
from tests.chat_server import Answer, Call, serving
from tests.small_translator import short_sentence_translator

WORDS = {row["en"]: row["zh"] for row in few_sentences([grammar("en"), grammar("zh")])}
QUESTIONS = [text for text in WORDS if text.endswith("?")]
DESCRIBE = next(text for text in WORDS if text.endswith("."))
OPTIONS = ["red", "blue", "green", "black"]


def said(*values: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[place % 2], "value": value} for place, value in enumerate(values)]


def choice(question: str) -> str:
    lines = [f"{letter}. {option}" for letter, option in zip("ABCD", OPTIONS, strict=True)]
    return "\n".join(["<image>", question, *lines])


ENTRIES: list[dict[str, Any]] = [
    {
        "id": f"{number:03d}",
        "image": f"coco/{number}.jpg",
        "conversations": said(choice(QUESTIONS[number % 5]), "B", f"{QUESTIONS[number % 7]}\n<image>", "red"),
    }
    for number in range(30)
]
ENTRIES[4] = {"id": "004", "conversations": [{"from": "human"}]}
ENTRIES[7] = {
    "id": "007",
    "conversations": said(f"<image>\n{DESCRIBE}", "99 red balloons, 7 of them torn in half."),
}


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conversations")
    (folder / "list.json").write_text(json.dumps(ENTRIES, indent=1))
    (folder / "lines.jsonl").write_text("\n".join(map(json.dumps, ENTRIES)))
    return folder


def spec(path: Path, output: Path, **changes: Any) -> ConversationSpec:
    settings: dict[str, Any] = {
        "conversations": path, "translator": short_sentence_translator(), "threads": 1, "output": output,
        "parameters": ConversationParameters(conversations_per_chunk=8),
    }  # fmt: skip
    return ConversationSpec(**{**settings, **changes})


def lines(table: Path, name: str = "zh.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in manifest.file(table, name).read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(lists: Path) -> Path:
    execute(STAGE, spec(lists / "list.json", lists / "undisturbed"))
    return lists / "undisturbed"


def test_turns_are_translated_around_what_stays(undisturbed: Path) -> None:
    found = {entry["id"]: entry for entry in lines(undisturbed)}
    for number in (0, 1, 29):
        source, entry = ENTRIES[number], found[f"{number:03d}"]
        options = [f"{letter}. {WORDS[option]}" for letter, option in zip("ABCD", OPTIONS, strict=True)]
        question = WORDS[QUESTIONS[number % 5]]
        assert [message["value"] for message in entry["conversations"]] == [
            "\n".join(["<image>", question, *options]),
            "B",
            f"{WORDS[QUESTIONS[number % 7]]}\n<image>",
            WORDS["red"],
        ]
        assert (entry["image"], entry["language"]) == (source["image"], "zh")
        assert [message["from"] for message in entry["conversations"]] == ["human", "gpt", "human", "gpt"]


def test_order_is_kept_and_every_conversation_is_accounted_for(undisturbed: Path) -> None:
    kept = [entry["id"] for entry in lines(undisturbed)]
    dropped = {row["id"]: row["reason"] for row in lines(undisturbed, "dropped.jsonl")}
    assert kept == [entry["id"] for entry in ENTRIES if entry["id"] not in dropped]
    assert set(dropped) == {"004", "007"}
    assert dropped["004"] == "malformed"
    made = manifest.read(undisturbed)
    assert made.ledger is not None
    assert (made.ledger.rows_in, made.ledger.kept) == (30, 28)


def test_lines_give_the_bytes_of_a_list(lists: Path, tmp_path: Path, undisturbed: Path) -> None:
    execute(STAGE, spec(lists / "lines.jsonl", tmp_path / "out"))
    for name in ("zh.jsonl", "dropped.jsonl"):
        assert (
            manifest.file(tmp_path / "out", name).read_bytes()
            == manifest.file(undisturbed, name).read_bytes()
        )


def test_a_stopped_run_goes_on_and_ends_with_equal_bytes(
    lists: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    translate_chunk = stage._translate_chunk
    asked: list[int] = []

    def stopping(*arguments: Any) -> Any:
        asked.append(arguments[4])
        if len(asked) == 3:
            raise KeyboardInterrupt
        return translate_chunk(*arguments)

    monkeypatch.setattr(stage, "_translate_chunk", stopping)
    with pytest.raises(KeyboardInterrupt):
        execute(STAGE, spec(lists / "list.json", tmp_path / "out"))
    assert not manifest.exists(tmp_path / "out")
    execute(STAGE, spec(lists / "list.json", tmp_path / "out"))
    assert asked == [0, 1, 2, 2, 3]
    assert lines(tmp_path / "out") == lines(undisturbed)


def test_a_server_is_asked_for_each_distinct_line_once_and_may_not_lose_a_number(tmp_path: Path) -> None:
    entries = [
        {"id": "good", "conversations": said("<image>\nHow many of the 3 dogs run?", "2 of 3 dogs.")},
        {"id": "lost", "conversations": said("<image>\nHow many of the 3 dogs run?", "All 12 dogs.")},
        {"id": "cut", "conversations": said("<image>\nWho?", "Nobody at all.")},
    ]
    (tmp_path / "three.json").write_text(json.dumps(entries))

    def translate(call: Call) -> Answer:
        text = call.prompt.split("\n\n", 1)[1]
        assert "<image>" not in text
        if text.startswith("All"):
            return Answer("所有的狗。")
        if text == "Nobody at all.":
            return Answer("没有", finish_reason="length")
        return Answer({"Who?": "谁？", "2 of 3 dogs.": "3只狗中的2只。"}.get(text, "3只狗中有几只在跑？"))

    with serving(translate) as (chat, url):
        remote = RemoteTranslation(server=Server(base_url=url, model="bee-10b"))
        table = tables.publish(
            tmp_path / "translator",
            lambda folder: (folder / SERVER_FILE).write_text(remote.model_dump_json()),
        )
        made = spec(
            tmp_path / "three.json", tmp_path / "out", translator=table, conduct=Conduct(backoff_seconds=0.01),
            parameters=ConversationParameters(sentences=False),
        )  # fmt: skip
        execute(STAGE, made)
    assert [entry["id"] for entry in lines(tmp_path / "out")] == ["good"]
    assert [m["value"] for m in lines(tmp_path / "out")[0]["conversations"]] == [
        "<image>\n3只狗中有几只在跑？",
        "3只狗中的2只。",
    ]
    dropped = {row["id"]: row["reason"] for row in lines(tmp_path / "out", "dropped.jsonl")}
    assert dropped == {"lost": "number_changed", "cut": "no_answer"}
    assert len(chat.calls) == 5


@pytest.mark.parametrize("text", ['[{"id": "1", "conversations": [', '{"id": 1}\n{"id"', "[1, 2", "not json"])
def test_a_file_that_breaks_off_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(BadInput, match=r"breaks off or is no JSON after entry \d"):
        execute(STAGE, spec(tmp_path / "broken.json", tmp_path / "out"))
