"""Our profiles read every answer as the tools themselves did; `parity/tools.json` holds what these said.

The table was made by running VLMEvalKit (e8e78f05), Parrot's fork of it (989d6d01), lmms-eval (75571cfe), LLaVA's
ScienceQA script (c121f043) and MME's (branch Evaluation, dd295090) on answers of ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipelines.benchmarks.profiles import lmms_eval, official, vlmevalkit

TOOLS = json.loads((Path(__file__).parent / "parity/tools.json").read_text(encoding="utf-8"))
LETTERS: dict[str, Callable[[str, Sequence[str]], tuple[str | None, str]]] = {
    "vlmevalkit": vlmevalkit.letter,
    "parrot-2024-08": vlmevalkit.letter_of_august_2024,
    "lmms-eval": lmms_eval.letter,
    "lmms-eval four": lmms_eval.letter_of_four,
    "lmms-eval mmbench": lmms_eval.mmbench_letter,
    "lmms-eval scienceqa": lmms_eval.scienceqa_letter,
    "lmms-eval seedbench": lmms_eval.first_character,
    "official scienceqa": official.scienceqa_letter,
}
YES_NO = {
    "vlmevalkit": vlmevalkit.yes_or_no,
    "lmms-eval": lmms_eval.yes_or_no,
    "official": official.yes_or_no,
}


def among(letter: str | None, options: Sequence[str]) -> str | None:
    """A letter that no option has is never right: the tools differ only in whether they keep it."""
    return letter if letter is not None and letter in "ABCDEFGH"[: len(options)] else None


@pytest.mark.parametrize("tool", LETTERS)
def test_letters_are_read_as_the_tool_reads_them(tool: str) -> None:
    cases = TOOLS["letters"]
    assert len(cases) > 600
    differing = [
        (answer, options, ours, case[tool])
        for case in cases
        for answer, options in [(case["answer"], case["options"])]
        for ours in [LETTERS[tool](answer, options)[0]]
        if among(ours, options) != among(case[tool], options)
    ]
    assert not differing


@pytest.mark.parametrize("tool", YES_NO)
def test_yes_and_no_are_read_as_the_tool_reads_them(tool: str) -> None:
    cases = [(case["answer"], YES_NO[tool](case["answer"])[0], case[tool]) for case in TOOLS["yes_no"]]
    assert not [case for case in cases if case[1] != case[2]]
