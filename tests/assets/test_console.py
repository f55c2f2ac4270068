"""Guarantees of what a person sees on the terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest

from assets.console import Console, duration, progress_words, table

REPORT: dict[str, Any] = {
    "kind": "progress", "stage": "pretrained", "phase": "training", "unit": "step",
    "done": 1200, "total": 6000, "rate": 4.125, "seconds_left": 1163.6, "figures": {"loss": 2.31049},
}  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.34, "0.3 s"), (0, "0 s"), (48.2, "48 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)  # fmt: skip
def test_a_duration_reads_naturally(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_progress_shows_phase_rate_time_left_and_loss() -> None:
    assert progress_words(REPORT) == "training 1,200/6,000 · 4.12 step/s · 19 min 24 s left · loss 2.31"


def test_progress_without_a_total_shows_what_is_known() -> None:
    unknown = {**REPORT, "total": None, "seconds_left": None, "figures": {}}
    assert progress_words(unknown) == "training 1,200 · 4.12 step/s"


def test_a_log_file_gets_few_lines_and_every_message(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.begin("pretrained", 12)
    for done in range(1000):
        console.show({**REPORT, "done": done})
    console.show({"kind": "message", "stage": "pretrained", "text": "resumed at step 400"})
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "[ 1/12] pretrained  training 0/6,000 · 4.12 step/s · 19 min 24 s left · loss 2.31",
        "[ 1/12] pretrained  resumed at step 400",
    ]


def test_a_terminal_line_is_redrawn_in_place_and_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    console, terminal = Console(), io.StringIO()
    console._terminal = terminal
    console.begin("pretrained", 12)
    console.show(REPORT)
    console.say("made in 3 s")
    drawn = terminal.getvalue()
    assert drawn.count("\n") == 1 and drawn.endswith("made in 3 s\n")
    assert max(len(part) for part in drawn.split("\r\x1b[K")) < 40


def test_numbers_in_a_table_stand_under_each_other() -> None:
    shown = table(["model", "score"], [["blend", 0.5], ["english only", 0.25]]).splitlines()
    assert shown[0] == "model         score"
    assert shown[2] == "blend         0.500"
    assert shown[3] == "english only  0.250"
