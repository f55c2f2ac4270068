"""The stage contract: reuse, one writer, whole tables only, balanced ledgers, errors that name the place."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from pipelines.documents import load
from pipelines.errors import BadInput
from pipelines.filter.spec import FilterSpec
from pipelines.fingerprint import parameters
from pipelines.lake import manifest
from pipelines.lake.identity import pair_uid
from pipelines.lake.ledger import Ledger
from pipelines.progress import Progress
from pipelines.stage import Execution, Outcome, Stage, StageSpec, Work, execute, why_not_reusable
from pipelines.training.spec import FinetuneSpec, Optimisation

ROOT = Path(__file__).parent.parent


class LinesSpec(StageSpec):
    lines: int = 3


def write_lines(spec: LinesSpec, work: Work, progress: Progress) -> Outcome:
    (work.out / "lines.txt").write_text("line\n" * spec.lines)
    return Outcome(ledger=Ledger(rows_in=spec.lines, kept=spec.lines), rows={"lines.txt": spec.lines})


def stage(run=write_lines, version: str = "1") -> Stage[LinesSpec]:
    return Stage("lines", "tests.lines", LinesSpec, version, run, "Writes lines.")


def test_an_equal_run_reuses_the_table_and_another_says_why_not(tmp_path: Path) -> None:
    spec = LinesSpec(output=tmp_path)
    made = execute(stage(), spec)

    assert execute(stage(), spec) == made
    assert "lines 3 -> 4" in why_not_reusable(stage(), LinesSpec(output=tmp_path, lines=4))[1]
    assert "code changed" in why_not_reusable(stage(version="2"), spec)[1]


def test_a_table_that_another_run_may_complete_is_published_and_made_again(tmp_path: Path) -> None:
    lacking = ["two lines were not to be had", ""]

    def write(spec: LinesSpec, work: Work, progress: Progress) -> Outcome:
        (work.out / "lines.txt").write_text("line\n" * spec.lines)
        return Outcome(incomplete=lacking.pop(0))

    spec = LinesSpec(output=tmp_path)
    made = execute(stage(write), spec)
    assert manifest.verify(tmp_path) == made
    assert why_not_reusable(stage(), spec)[1].endswith("two lines were not to be had")
    again = execute(stage(write), spec)
    assert (again.incomplete, again.data_version) == ("", made.data_version)
    assert execute(stage(write), spec) == again


class Conduct(BaseModel):
    what: int = 1
    how: Annotated[int, Execution] = 1


class NestedSpec(StageSpec):
    one: Conduct = Conduct()
    named: dict[str, Conduct] = Field({})
    several: list[Conduct] = Field([])
    pace: Annotated[Conduct, Execution] = Conduct()


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"one": Conduct(how=2)}, False),
        ({"one": Conduct(what=2)}, True),
        ({"named": {"a": Conduct(how=2)}}, False),
        ({"named": {"a": Conduct(what=2)}}, True),
        ({"named": {"b": Conduct()}}, True),
        ({"several": [Conduct(), Conduct(how=2)]}, False),
        ({"several": [Conduct(), Conduct(what=2)]}, True),
        ({"pace": Conduct(what=2)}, False),
    ],
)
def test_how_the_work_is_run_never_counts_at_whatever_depth_it_stands(
    tmp_path: Path, change: dict[str, object], counts: bool
) -> None:
    base = NestedSpec(output=tmp_path, named={"a": Conduct()}, several=[Conduct(), Conduct()])

    assert (parameters(base.model_copy(update=change)) != parameters(base)) is counts


def test_another_pace_of_checkpoints_is_the_same_training() -> None:
    settings = Optimisation(steps=3, learning_rates={"visual": 1e-3})
    spec = FinetuneSpec(
        output=Path("out"), pretrained=Path("model"), instructions=Path("mix"), optimisation=settings
    )
    paced = settings.model_copy(
        update={"checkpoint_every": 7, "checkpoints_kept": 5, "keep_every": 14, "data_workers": 3}
    )

    assert parameters(spec.model_copy(update={"optimisation": paced})) == parameters(spec)
    assert parameters(spec)["optimisation"]["steps"] == 3


def test_changed_content_behind_an_unchanged_path_is_noticed_and_made_anew(tmp_path: Path) -> None:
    spec = LinesSpec(output=tmp_path)
    execute(stage(), spec)
    manifest.file(tmp_path, "lines.txt").write_text("other\nline\nline\n")

    with pytest.raises(BadInput, match="do not match"):
        manifest.verify(tmp_path)
    assert "files changed" in why_not_reusable(stage(), spec)[1]
    execute(stage(), spec)
    assert manifest.file(tmp_path, "lines.txt").read_text() == "line\n" * 3


def test_a_stage_that_fails_leaves_the_old_table_as_it_was(tmp_path: Path) -> None:
    execute(stage(), LinesSpec(output=tmp_path))

    def fail(spec: LinesSpec, work: Work, progress: Progress) -> Outcome:
        write_lines(spec, work, progress)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BadInput, match="the disk is full"):
        execute(stage(fail), LinesSpec(output=tmp_path, lines=9))
    assert manifest.verify(tmp_path).rows == 3


def test_an_unbalanced_ledger_is_never_published(tmp_path: Path) -> None:
    def lose(spec: LinesSpec, work: Work, progress: Progress) -> Outcome:
        return Outcome(ledger=Ledger(rows_in=3, kept=1, dropped={"reason": 1}))

    with pytest.raises(AssertionError, match="does not balance"):
        execute(stage(lose), LinesSpec(output=tmp_path))
    assert not manifest.exists(tmp_path)


def test_of_two_runs_at_once_one_makes_the_table_and_the_other_finds_it_made(tmp_path: Path) -> None:
    script = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from tests.test_stage import LinesSpec, stage, write_lines
from pipelines.stage import execute
def slowly(spec, work, progress):
    (Path({str(tmp_path)!r}) / "runs").open("a").write("x")
    time.sleep(1)
    return write_lines(spec, work, progress)
print(execute(stage(slowly), LinesSpec(output=Path({str(tmp_path)!r}) / "table")).data_version)
"""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
        )
        for _ in range(2)
    ]
    versions = {run.communicate()[0].strip() for run in runs}

    assert len(versions) == 1
    assert versions != {b""}
    assert (tmp_path / "runs").read_text() == "x"


def test_an_unknown_key_is_named_with_the_keys_that_exist(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"output": "x", "raw_pairs": "a", "clip_scores": "b", "treshold": 0.2}))

    with pytest.raises(BadInput, match=r"treshold: unknown key[\s\S]*parameters"):
        load(FilterSpec, path)


def test_files_that_a_person_keeps_in_the_output_folder_survive(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    execute(stage(), LinesSpec(output=tmp_path))
    execute(stage(), LinesSpec(output=tmp_path, lines=5))

    assert (tmp_path / "mine").is_dir()
    assert len([path for path in tmp_path.iterdir() if len(path.name) == 16]) == 1


@given(kept=st.integers(0, 99), reasons=st.lists(st.sampled_from(["timeout", "http_404", "truncated"])))
def test_a_ledger_made_of_reasons_balances_and_so_does_a_sum(kept: int, reasons: list[str]) -> None:
    ledger = Ledger.of(kept=kept, reasons=reasons)
    assert ledger.balanced
    assert (ledger + ledger).balanced
    assert sum(ledger.dropped.values()) == len(reasons)


@given(st.text(), st.text(), st.text(), st.text())
def test_different_pairs_have_different_uids(url: str, caption: str, other: str, words: str) -> None:
    same = (url, caption) == (other, words)
    if "\0" not in url + other:
        assert (pair_uid(url, caption) == pair_uid(other, words)) is same
