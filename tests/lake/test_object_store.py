"""Tables in an object store: whole or absent, one writer, nothing stale, no secrets; on a real S3 server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines.declaration import InputTable
from pipelines.errors import BadInput
from pipelines.lake import cache, lease, location, lock, manifest
from pipelines.lake.positioned import PositionedFile
from pipelines.progress import Progress
from pipelines.stage import Outcome, Stage, StageSpec, Work, execute, why_not_reusable
from tests.object_store import SECRET, FaultyProxy

ROOT = Path(__file__).parents[2]


class LinesSpec(StageSpec):
    lines: int = 3


def write_lines(spec: LinesSpec, work: Work, progress: Progress) -> Outcome:
    (work.out / "more").mkdir(exist_ok=True)
    (work.out / "lines.txt").write_text("line\n" * spec.lines)
    (work.out / "more" / "page.html").write_text("<p>page</p>")
    return Outcome(rows={"lines.txt": spec.lines})


def stage(run=write_lines) -> Stage[LinesSpec]:
    return Stage("lines", "tests.lines", LinesSpec, "1", run, "Writes lines.", stable_names=("lines.txt",))


class CopySpec(StageSpec):
    source: InputTable


def copy(spec: CopySpec, work: Work, progress: Progress) -> Outcome:
    (work.out / "copy.txt").write_bytes(manifest.file(spec.source, "lines.txt").read_bytes())
    return Outcome()


COPY = Stage("copy", "tests.copy", CopySpec, "1", copy, "Copies.")


def names(folder: Path) -> list[str]:
    return sorted(path.as_posix().removeprefix(folder.as_posix() + "/") for path in location.listing(folder))


def test_a_url_survives_being_a_path(s3: Path) -> None:
    assert location.url(Path("s3://bucket/a") / "b") == "s3://bucket/a/b"
    assert location.url(Path(str(Path("s3://bucket/a")))) == "s3://bucket/a"
    assert LinesSpec.model_validate_json(LinesSpec(output=s3).model_dump_json()).output == s3


def test_a_table_has_the_same_fingerprint_and_content_there_as_here(s3: Path, tmp_path: Path) -> None:
    here = execute(stage(), LinesSpec(output=tmp_path / "table"))
    there = execute(stage(), LinesSpec(output=s3))

    assert (there.fingerprint, there.data_version) == (here.fingerprint, here.data_version)
    name = there.fingerprint
    assert set(names(s3)) == {
        ".lock", "_MANIFEST.json", "lines.txt", f"{name}/lines.txt", f"{name}/more/page.html",
    }  # fmt: skip
    assert execute(stage(), LinesSpec(output=s3)) == there
    assert manifest.file(s3, "lines.txt").read_text() == "line\n" * 3
    assert sorted(path.name for path in manifest.folder(s3).rglob("*.*")) == ["lines.txt", "page.html"]


def test_another_version_replaces_the_table_and_its_objects(s3: Path) -> None:
    execute(stage(), LinesSpec(output=s3))
    made = execute(stage(), LinesSpec(output=s3, lines=4))

    assert manifest.file(s3, "lines.txt").read_text() == "line\n" * 4
    assert {name.split("/")[0] for name in names(s3)} == {
        ".lock",
        "_MANIFEST.json",
        "lines.txt",
        "_lineage",
        made.fingerprint,
    }


def test_stages_chain_over_the_store_and_from_it_to_a_disk(s3: Path, tmp_path: Path) -> None:
    execute(stage(), LinesSpec(output=s3 / "lines"))
    there = execute(COPY, CopySpec(output=s3 / "copy", source=s3 / "lines"))
    here = execute(COPY, CopySpec(output=tmp_path / "copy", source=s3 / "lines"))

    assert there.data_version == here.data_version
    assert manifest.file(s3 / "copy", "copy.txt").read_text() == "line\n" * 3


def test_changed_content_behind_an_unchanged_name_is_noticed_and_made_anew(s3: Path) -> None:
    made = execute(stage(), LinesSpec(output=s3))
    location.write_bytes(s3 / made.fingerprint / "lines.txt", b"LINE\n" * 3)

    with pytest.raises(BadInput, match="do not match"):
        manifest.verify(s3)
    with pytest.raises(BadInput, match="another sha256"):
        manifest.file(s3, "lines.txt")
    assert "files changed" in why_not_reusable(stage(), LinesSpec(output=s3))[1]
    execute(stage(), LinesSpec(output=s3))
    assert manifest.file(s3, "lines.txt").read_text() == "line\n" * 3


def test_a_finished_file_leaves_the_disk_at_once(s3: Path) -> None:
    seen = []

    def write(spec: LinesSpec, work: Work, progress: Progress) -> Outcome:
        for number in range(spec.lines):
            path = work.out / f"{number}.txt"
            path.write_text(f"{number}")
            work.finish(path)
            seen.append(len(list(work.out.iterdir())))
        return Outcome()

    made = execute(Stage("lines", "x", LinesSpec, "1", write, "x"), LinesSpec(output=s3))
    assert seen == [0, 0, 0]
    assert [file.path.split("/")[1] for file in made.files] == ["0.txt", "1.txt", "2.txt"]
    assert not why_not_reusable(Stage("lines", "x", LinesSpec, "1", write, "x"), LinesSpec(output=s3))[1]


def test_a_run_that_was_overtaken_publishes_nothing(s3: Path) -> None:
    def overtaken(spec: LinesSpec, work: Work, progress: Progress) -> Outcome:
        location.write_bytes(s3 / manifest.MANIFEST_NAME, b"published by another")
        return write_lines(spec, work, progress)

    with pytest.raises(BadInput, match="another run published"):
        execute(stage(overtaken), LinesSpec(output=s3))
    assert location.read_bytes(s3 / manifest.MANIFEST_NAME) == b"published by another"


def test_a_second_writer_waits_for_the_first(s3: Path, caplog: pytest.LogCaptureFixture) -> None:
    order = []
    inside = threading.Event()

    def first() -> None:
        with lock.exclusive(s3):
            inside.set()
            time.sleep(0.5)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(20)
    with lock.exclusive(s3, poll_seconds=0.05):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert "waiting for it" in caplog.text


def test_a_lease_is_renewed_and_one_that_is_lost_is_noticed(
    s3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.4)
    with lock.exclusive(s3) as check:
        time.sleep(0.8)
        check()
        location.write_bytes(s3 / ".lock", b'{"host": "other", "process": 1, "started": 0}')
        time.sleep(0.4)
        with pytest.raises(BadInput, match="lost its lease"):
            check()


def test_the_lease_of_a_silent_host_runs_out(s3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.3)
    location.write_bytes(s3 / ".lock", b'{"host": "another-host", "process": 1, "started": 0}')
    started = time.monotonic()
    with lock.exclusive(s3, poll_seconds=0.05) as check:
        check()
    assert time.monotonic() - started > 0.3


def test_the_lease_of_a_killed_process_of_this_host_is_taken_over_at_once(s3: Path) -> None:
    script = f"""
import os, sys, signal
from pathlib import Path
from pipelines.lake import lock
with lock.exclusive(Path({str(s3)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=os.environ, check=False)
    assert done.returncode == -9
    with lock.exclusive(s3, poll_seconds=0.05) as check:
        check()


def test_ranges_are_read_without_fetching_the_object(s3: Path, tmp_path: Path) -> None:
    content = os.urandom(5000)
    location.write_bytes(s3 / "x.tar", content)
    (tmp_path / "x.tar").write_bytes(content)
    with PositionedFile(s3 / "x.tar", ahead_bytes=1000) as there, PositionedFile(tmp_path / "x.tar") as here:
        for offset, length in [(0, 10), (5, 900), (4000, 500), (4990, 100), (6000, 10), (100, 3000)]:
            assert there.read(offset, length) == here.read(offset, length)
    assert not (tmp_path / "cache" / "files").exists()


def test_a_missing_object_and_a_missing_table_are_named_as_urls(s3: Path) -> None:
    with pytest.raises(BadInput, match=r"s3://bucket/.*_MANIFEST"):
        manifest.read(s3 / "nothing")
    made = execute(stage(), LinesSpec(output=s3))
    location.remove([s3 / made.files[0].path])
    with pytest.raises(BadInput, match=r"missing\n  where:  s3://"):
        manifest.file(s3, "lines.txt")


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(BadInput, match="holds credentials") as caught:
        manifest.exists(Path("s3://key:hunter2@bucket/lake"))
    assert "hunter2" not in str(caught.value)


def test_no_secret_stands_in_anything_that_is_written(
    s3: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    execute(stage(), LinesSpec(output=s3))
    manifest.folder(s3)
    written = b"".join(location.read_bytes(path) for path in location.listing(s3))
    local = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET.encode() not in written + local + "".join(capfd.readouterr()).encode()


def test_a_lost_cache_costs_nothing_but_time(s3: Path) -> None:
    execute(stage(), LinesSpec(output=s3))
    first = manifest.file(s3, "lines.txt").read_bytes()
    shutil.rmtree(cache.root())
    assert manifest.file(s3, "lines.txt").read_bytes() == first
    assert json.loads(location.read_bytes(s3 / "_MANIFEST.json"))["stage"] == "lines"


def test_a_store_without_conditions_and_deletes_in_bulk_serves_when_it_is_said_to_be_one(
    s3: Path, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Google Cloud Storage behind its S3 endpoint: the condition of a write is passed over, without a word."""
    proxy.passed_over |= {"if-none-match", "if-match"}
    proxy.fault = lambda method, path, number: 500 if (method, path.strip("/")) == ("POST", "bucket") else 0
    tag = location.put_if(s3 / "lock", b"first", None)
    monkeypatch.setenv("LAKE_PLAIN_STORE", "yes")
    for wrong in (None, '"0123"'):
        with pytest.raises(location.Conflict):
            location.put_if(s3 / "lock", b"second", wrong)
    assert location.read_bytes(s3 / "lock") == b"first"
    location.put_if(s3 / "lock", b"second", tag)
    assert location.read_bytes(s3 / "lock") == b"second"

    location.remove([s3 / "lock", s3 / "gone-already"])
    assert names(s3) == []
    spec = LinesSpec(output=s3 / "lines")
    assert execute(stage(), spec).files == execute(stage(), spec).files
