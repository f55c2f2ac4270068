"""What a run survives: a kill at any write, a full or failing disk, a throttling or forgetful store.

Each time the table that was there stays as it was, and the next run leaves the bytes of an undisturbed one.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import BadInput, StoreBusy
from pipelines.lake import lease, location, manifest
from pipelines.lake.ledger import Ledger
from pipelines.progress import Progress
from pipelines.stage import InputFile, InputTable, Outcome, Stage, StageSpec, Work, execute
from tests.object_store import LOSE_ANSWER, FaultyProxy

ROOT = Path(__file__).parents[2]
PARTS = 3


class PartsSpec(StageSpec):
    seed: int = 0
    source: InputFile | None = None
    table: InputTable | None = None


def write_parts(spec: PartsSpec, work: Work, progress: Progress) -> Outcome:
    """A resumable stage in small: parts that are finished stay."""
    for number in range(PARTS):
        path = work.out / f"{number}.txt"
        done = {file.path for file in work.shipped()}
        if path.is_file() or path.name in done:
            continue
        location.write_bytes(path, f"seed {spec.seed}, part {number}\n".encode() * 1000)
        work.finish(path)
    location.write_bytes(work.out / "page.html", b"<p>page</p>")
    return Outcome(ledger=Ledger(rows_in=PARTS, kept=PARTS), rows={f"{n}.txt": 1 for n in range(PARTS)})


STAGE = Stage(
    "parts",
    "tests.parts",
    PartsSpec,
    "1",
    write_parts,
    "Writes parts.",
    resumable=True,
    stable_names=("page.html",),
)


def content(table: Path) -> dict[str, bytes]:
    """Everything that a reader of the table may see, besides times."""
    made = manifest.read(table)
    files = {file.path: location.read_bytes(table / file.path) for file in made.files}
    return {
        **files,
        "page.html": location.read_bytes(table / "page.html"),
        "version": made.data_version.encode(),
    }


def _boundaries(act: Callable[[int], None]) -> None:
    """Call `act` with a running number before and after every operation that changes a disk or a store."""
    count = 0

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal count
            act(count)
            count += 1
            result = function(*arguments, **keywords)
            act(count)
            count += 1
            return result

        return call

    os.fsync = wrapped(os.fsync)
    Path.replace = wrapped(Path.replace)  # type: ignore[method-assign]
    for name in ("write_bytes", "upload", "put_if", "remove"):
        setattr(location, name, wrapped(getattr(location, name)))


def _run_and_die(spec: PartsSpec, at: int) -> None:
    def act(number: int) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    _boundaries(act)
    execute(STAGE, spec)


def _killed(spec: PartsSpec, at: int) -> bool:
    """Run in a process that kills itself at a boundary; whether it came that far."""
    process = multiprocessing.get_context("fork").Process(target=_run_and_die, args=(spec, at))
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


def test_killed_at_any_write_a_run_leaves_the_old_table_and_then_the_same_new_one(tmp_path: Path) -> None:
    execute(STAGE, PartsSpec(output=tmp_path / "undisturbed", seed=1))
    execute(STAGE, PartsSpec(output=tmp_path / "old", seed=0))
    expected, old = content(tmp_path / "undisturbed"), content(tmp_path / "old")
    at = 0
    while True:
        table = tmp_path / f"killed-{at}"
        execute(STAGE, PartsSpec(output=table, seed=0))
        if not _killed(PartsSpec(output=table, seed=1), at):
            break
        assert not manifest.faults(table, manifest.read(table))
        there = {name: value for name, value in content(table).items() if name != "page.html"}
        assert there in [{k: v for k, v in one.items() if k != "page.html"} for one in (old, expected)]
        execute(STAGE, PartsSpec(output=table, seed=1))
        assert content(table) == expected
        assert sorted(path.name for path in table.iterdir() if path.is_dir() and len(path.name) == 16) == [
            manifest.read(table).fingerprint
        ]
        at += 1
    assert at > 15


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_killed_while_it_writes_to_a_store_a_run_leaves_whole_tables(
    s3: Path, tmp_path: Path, share: float
) -> None:
    execute(STAGE, PartsSpec(output=s3 / "undisturbed", seed=1))
    expected = content(s3 / "undisturbed")
    execute(STAGE, PartsSpec(output=s3 / "killed", seed=0))
    script = f"""
import sys
from pathlib import Path
from tests.lake import test_faults as faults
faults._run_and_die(faults.PartsSpec(output=Path({str(s3 / "killed")!r}), seed=1), {int(share * 26)})
"""
    # Not forked: the store's client has a thread.
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=os.environ, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not manifest.faults(s3 / "killed", manifest.read(s3 / "killed"))
    execute(STAGE, PartsSpec(output=s3 / "killed", seed=1))
    assert content(s3 / "killed") == expected


@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("at", [0, 5, 9])
def test_a_disk_that_is_full_or_fails_leaves_the_old_table_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: int, at: int
) -> None:
    execute(STAGE, PartsSpec(output=tmp_path / "undisturbed", seed=1))
    execute(STAGE, PartsSpec(output=tmp_path / "table", seed=0))
    old, calls = content(tmp_path / "table"), 0
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > at // 2:
            raise OSError(failure, os.strerror(failure))
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing)
        with pytest.raises(BadInput if failure == errno.ENOSPC else OSError) as caught:
            execute(STAGE, PartsSpec(output=tmp_path / "table", seed=1))
    assert ("disk is full" in str(caught.value)) is (failure == errno.ENOSPC)
    assert content(tmp_path / "table") == old
    execute(STAGE, PartsSpec(output=tmp_path / "table", seed=1))
    assert content(tmp_path / "table") == content(tmp_path / "undisturbed")


def test_a_really_full_disk_is_named(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")

    def write(spec: PartsSpec, work: Work, progress: Progress) -> Outcome:
        with full.open("wb") as stream:
            stream.write(b"x" * 100_000)
        return Outcome()

    with pytest.raises(BadInput, match="the disk is full"):
        execute(Stage("full", "tests.full", PartsSpec, "1", write, "Fills."), PartsSpec(output=tmp_path))


def test_an_input_that_changes_while_it_is_read_stops_the_publish(tmp_path: Path) -> None:
    source = tmp_path / "urls.txt"
    source.write_text("first")

    def write(spec: PartsSpec, work: Work, progress: Progress) -> Outcome:
        (work.out / "page.html").write_text(source.read_text())
        source.write_text("second")
        return Outcome()

    stage = Stage("parts", "tests.parts", PartsSpec, "1", write, "Reads.")
    with pytest.raises(BadInput, match="an input changed while it was read: source"):
        execute(stage, PartsSpec(output=tmp_path / "table", source=source))
    assert not manifest.exists(tmp_path / "table")


def test_throttling_is_waited_out(s3: Path, proxy: FaultyProxy) -> None:
    # Every object's first two requests of each kind are refused.
    proxy.fault = lambda method, path, number: 503 if number < 2 else 0
    made = execute(STAGE, PartsSpec(output=s3))
    assert proxy.refused > 10
    proxy.fault = lambda method, path, number: 0
    assert not manifest.faults(s3, made)


def test_a_store_that_fails_inside_now_and_then_is_asked_again(s3: Path, proxy: FaultyProxy) -> None:
    proxy.fault = lambda method, path, number: 500 if number % 3 == 1 else 0
    made = execute(STAGE, PartsSpec(output=s3))
    proxy.fault = lambda method, path, number: 0
    assert not manifest.faults(s3, made)


def test_a_store_that_never_lets_up_ends_the_run_clearly(
    s3: Path, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(STAGE, PartsSpec(output=s3))
    old = content(s3)
    monkeypatch.setattr(location, "MOST_ATTEMPTS", 2)
    proxy.fault = lambda method, path, number: 503 if method == "PUT" and path.endswith("1.txt") else 0
    with pytest.raises(StoreBusy, match="SlowDown"):
        execute(STAGE, PartsSpec(output=s3, seed=1))
    proxy.fault = lambda method, path, number: 0
    assert content(s3) == old
    execute(STAGE, PartsSpec(output=s3, seed=1))
    assert content(s3) != old


def test_a_publish_whose_answer_was_lost_counts_once(s3: Path, proxy: FaultyProxy) -> None:
    def fault(method: str, path: str, number: int) -> int:
        return LOSE_ANSWER if method == "PUT" and path.endswith(manifest.MANIFEST_NAME) and number == 0 else 0

    proxy.fault = fault
    made = execute(STAGE, PartsSpec(output=s3))
    assert proxy.refused == 1
    assert manifest.read(s3) == made


def test_a_holder_that_cannot_renew_its_lease_publishes_nothing(
    s3: Path, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.3)

    def slow(spec: PartsSpec, work: Work, progress: Progress) -> Outcome:
        proxy.fault = lambda method, path, number: 403 if path.endswith(".lock") else 0
        time.sleep(0.8)
        return write_parts(spec, work, progress)

    stage = Stage("parts", "tests.parts", PartsSpec, "1", slow, "Slow.", stable_names=("page.html",))
    with pytest.raises(BadInput, match="lost its lease"):
        execute(stage, PartsSpec(output=s3))
    assert not manifest.exists(s3)
