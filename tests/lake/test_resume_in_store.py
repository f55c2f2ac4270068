"""A machine is lost with its disk in the middle of a stage whose table lies in an object store: another goes on from what was kept.

The same for the download, the facts, the training shards and both translations: what was whole is not made again, the table has the
bytes of an undisturbed one, nothing counts that the store does not hold, and nothing that was kept stays after the publish.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.conversations import run as talking
from pipelines.conversations import spec as conversations
from pipelines.download import spec as download
from pipelines.download.shipping import Shipping
from pipelines.download.spec import DownloadSpec
from pipelines.errors import BadInput
from pipelines.facts import clusters
from pipelines.facts import run as facts
from pipelines.facts.spec import STAGE as FACTS
from pipelines.facts.spec import FactsParameters, FactsSpec, NearDuplicates
from pipelines.lake import cache, location, manifest
from pipelines.progress import Progress
from pipelines.score.run import SCORES
from pipelines.shard import spec as shard
from pipelines.shard import write
from pipelines.shard.spec import ShardParameters, ShardSpec
from pipelines.stage import Outcome, Stage, StageSpec, Work, execute
from pipelines.translate import captions
from pipelines.translate import spec as translate
from pipelines.translate.spec import TranslateParameters, TranslateSpec
from tests import tables
from tests.conversations import test_conversations as talks
from tests.download.conftest import CrawlMaker
from tests.download.hostile_server import HostileServer
from tests.small_translator import short_sentence_translator

Machine = Callable[[], None]


class Lost(BaseException):
    """The machine is gone: nothing that comes after this is done."""


@pytest.fixture
def another_machine(s3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """What is done from now on is done on a machine that has nothing of those before."""
    numbers = itertools.count()

    def start() -> None:
        shutil.rmtree(cache.root(), ignore_errors=True)
        monkeypatch.setenv("LAKE_CACHE", str(tmp_path / f"machine-{next(numbers)}"))

    start()
    return start


def digests(table: Path) -> dict[str, str]:
    return {Path(file.path).name: file.sha256 for file in manifest.verify(table).files}


def kept(table: Path) -> list[Path]:
    return [path for path in location.listing(table) if "_work" in path.parts]


def _the_one(table: Path, *parts: str) -> Path:
    """The object of the unpublished table whose path ends in `parts`."""
    (found,) = [path for path in location.listing(table) if path.parts[-len(parts) :] == parts]
    return found


def _killed(target: Callable[..., None], *arguments: Any) -> None:
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL


def _copied(table: Path, to: Path) -> Path:
    for path in location.listing(table):
        location.write_bytes(to / path.relative_to(table), location.read_bytes(path))
    return to


# The download ---------------------------------------------------------------------------------------------------------

SHARDS, ROWS = 5, 4
SHARD_0 = ("shard-00000.tar", "pairs-00000.parquet", "dropped-00000.parquet")


@pytest.fixture
def web() -> Iterator[HostileServer]:
    server = HostileServer()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def _die_after(shards: int, spec: DownloadSpec) -> None:
    """Download, and die when so many shards were kept."""
    ship, kept = Shipping._ship, itertools.count(1)

    def dying(self: Shipping, record: Any) -> None:
        ship(self, record)
        if next(kept) == shards:
            os.kill(os.getpid(), signal.SIGKILL)

    Shipping._ship = dying  # type: ignore[method-assign]
    execute(download.STAGE, spec)


def _replace(path: Path) -> None:
    content = location.read_bytes(path)
    location.write_bytes(path, content[:-1] + bytes([content[-1] ^ 1]))


LOSSES: dict[str, tuple[Callable[[Path], None], bool]] = {
    "nothing": (lambda table: None, False),
    "an uploaded file": (lambda table: location.remove([_the_one(table, SHARD_0[1])]), True),
    "the content of an uploaded file": (lambda table: _replace(_the_one(table, SHARD_0[0])), True),
    "the note of what was uploaded": (
        lambda table: location.remove([_the_one(table, "shipped", f"{SHARD_0[0]}.json")]),
        True,
    ),
    "the record": (lambda table: location.remove([_the_one(table, "done", "00000.json")]), True),
}
"""What goes missing of shard 0 between two runs, and whether it must be made again."""


def test_a_lost_machine_costs_a_download_only_the_shards_in_the_making(
    s3: Path, tmp_path: Path, web: HostileServer, another_machine: Machine
) -> None:
    maker = CrawlMaker(tmp_path)
    paths = [f"/ok/{at}.jpg" for at in range(SHARDS * ROWS)]
    paths[1], paths[ROWS] = "/missing.jpg", "/html.jpg"
    crawl = maker.crawl([web.origin + path for path in paths])
    on_disk = maker.spec(crawl, web.server_port, workers=1, rows_per_shard=ROWS, timeout_seconds=5)
    expected = execute(download.STAGE, on_disk)
    spec = on_disk.model_copy(update={"output": s3 / "killed"})
    web.hits.clear()
    _killed(_die_after, 2, spec)
    assert not manifest.exists(s3 / "killed")
    whole = {int(path.stem) for path in kept(s3 / "killed") if path.parent.name == "done"}
    assert 2 <= len(whole) < SHARDS
    before = dict(web.hits)
    for what, (lose, again) in LOSSES.items():
        table = _copied(s3 / "killed", s3 / what.replace(" ", "-"))
        lose(table)
        another_machine()
        web.hits.clear()
        made = execute(download.STAGE, spec.model_copy(update={"output": table}))
        for number in range(SHARDS):
            asked = number not in whole or (again and number == 0)
            assert [web.hits[path] for path in paths[number * ROWS :][:ROWS]] == [int(asked)] * ROWS, what
        assert made.metrics["shards_reused"] == len(whole) - again
        assert made.ledger == expected.ledger
        assert digests(table) == digests(on_disk.output)
        assert not kept(table)
    assert all(before[path] == 1 for number in whole for path in paths[number * ROWS :][:ROWS])


def test_machines_that_take_turns_end_with_the_bytes_of_one(
    s3: Path, tmp_path: Path, web: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first machine comes back with its disk, after another made anew what it had begun to upload."""
    maker = CrawlMaker(tmp_path)
    crawl = maker.crawl([f"{web.origin}/ok/{at}.jpg" for at in range(SHARDS * ROWS)])
    on_disk = maker.spec(crawl, web.server_port, workers=1, rows_per_shard=ROWS, timeout_seconds=5)
    execute(download.STAGE, on_disk)
    spec = on_disk.model_copy(update={"output": s3 / "table"})
    for machine, shards in (("first", 1), ("second", 1), ("first", 1)):
        monkeypatch.setenv("LAKE_CACHE", str(tmp_path / machine))
        _killed(_die_after, shards, spec)
        # What it uploaded, the others do not find as it was: the notes on its own disk must not count either.
        for path in location.listing(s3 / "table"):
            if path.name == "shard-00000.tar":
                location.remove([path])
    made = execute(download.STAGE, spec)
    assert made.metrics["shards_reused"] >= 1
    assert digests(s3 / "table") == digests(on_disk.output)


# The facts ------------------------------------------------------------------------------------------------------------


def _facts_spec(folder: Path, output: Path) -> FactsSpec:
    near = NearDuplicates(hash_bits=3, cosine=0.9, rows_per_cluster=4)
    parameters = FactsParameters(languages=["en", "de"], near_duplicates=near)
    return FactsSpec(output=output, raw_pairs=folder / "raw", clip_scores=folder / "scores", parameters=parameters)  # fmt: skip


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """Raw pairs in three shards with their scores; some have near hashes, and some near embeddings."""
    rows = tables.world_rows(24)
    raw = tables.raw_pairs(tmp_path / "raw", rows)
    random = np.random.default_rng(0)
    vectors = random.normal(size=(8, 16)).astype(np.float16)[np.arange(24) % 8]
    unlike = random.integers(2**63, size=24).tolist()

    def write(folder: Path) -> None:
        for number in range(3):
            uids = [row["uid"] for row in rows[number::3]]
            hashes = [unlike[place] if place % 4 else 0 for place in range(number, 24, 3)]
            scores = pa.table({"uid": uids, "score": [0.5] * 8, "perceptual_hash": hashes}, SCORES)
            pq.write_table(scores, folder / f"scores-{number:05d}.parquet")
            np.save(folder / f"images-{number:05d}.npy", vectors[number::3])

    made = manifest.read(tables.publish(tmp_path / "scores", write))
    of_raw = {"raw_pairs": manifest.read(raw).data_version}
    manifest.write(tmp_path / "scores", made.model_copy(update={"inputs": of_raw}))
    return tmp_path


def test_a_lost_machine_costs_the_facts_only_the_shard_in_the_making(
    s3: Path, scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where k-means parts the images otherwise on each machine: what stands in the store is of one parting."""
    expected = execute(FACTS, _facts_spec(scored, tmp_path / "undisturbed"))
    assert expected.metrics["with_near_duplicates_by_embedding"] == 24
    assert 0 < expected.metrics["with_near_duplicates_by_hash"] < 24
    of_shard, calls, left = facts._facts, list[int](), 1

    def on(machine: str) -> FactsSpec:
        monkeypatch.setenv("LAKE_CACHE", str(tmp_path / machine))
        return _facts_spec(scored, s3 / "facts")

    def losing(*arguments: Any) -> Any:
        calls.append(len(calls))
        if len(calls) > left:
            raise Lost
        return of_shard(*arguments)

    monkeypatch.setattr(facts, "_facts", losing)
    with pytest.raises(Lost):
        execute(FACTS, on("first"))
    monkeypatch.setattr(clusters, "groups", lambda *_: np.full(24, -1, dtype=np.int64))
    left = 3
    with pytest.raises(Lost):
        execute(FACTS, on("second"))
    for path in (tmp_path / "first").rglob("cosine.npy"):
        np.save(path, np.full(24, -1, dtype=np.int64))
    left = 1000
    made = execute(FACTS, on("first"))
    assert len(calls) == 5
    assert digests(s3 / "facts") == digests(tmp_path / "undisturbed")
    assert made.metrics == expected.metrics
    assert not kept(s3 / "facts")


def test_facts_on_a_disk_go_on_too_and_a_torn_file_counts_for_nothing(
    scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(FACTS, _facts_spec(scored, tmp_path / "undisturbed"))
    of_shard, calls = facts._facts, list[Any]()

    def losing(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise Lost
        return of_shard(*arguments)

    monkeypatch.setattr(facts, "_facts", losing)
    with pytest.raises(Lost):
        execute(FACTS, _facts_spec(scored, tmp_path / "facts"))
    torn = next((tmp_path / "facts").rglob("facts-00001.parquet"))
    torn.write_bytes(torn.read_bytes()[:-20])
    execute(FACTS, _facts_spec(scored, tmp_path / "facts"))
    assert len(calls) == 5
    assert digests(tmp_path / "facts") == digests(tmp_path / "undisturbed")


# The training shards --------------------------------------------------------------------------------------------------


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    rows = tables.world_rows(24)
    tables.raw_pairs(tmp_path / "raw", rows)
    tables.filtered_pairs(tmp_path / "filtered", [row["uid"] for row in rows])
    tables.translations(tmp_path / "translations", {"zh": {row["uid"]: "译文" for row in rows[::2]}})
    return tmp_path


def _shard_spec(lake: Path, output: Path, workers: int = 1) -> ShardSpec:
    return ShardSpec(
        output=output, raw_pairs=lake / "raw", filtered_pairs=lake / "filtered", translations=lake / "translations",
        parameters=ShardParameters(samples_per_shard=4), workers=workers,
    )  # fmt: skip


def _die_before_shard(number: int, spec: ShardSpec) -> None:
    write_shard = write.write_shard

    def dying(task: write.Task, shard: int) -> None:
        if shard == number:
            os.kill(os.getpid(), signal.SIGKILL)
        write_shard(task, shard)

    write.write_shard = dying
    execute(shard.STAGE, spec)


@pytest.mark.parametrize("lost", ["", "shard-00001.tar", "shard-00001.tar.json", "00001.parquet"])
def test_a_lost_machine_costs_the_training_shards_only_those_in_the_making(
    s3: Path, lake: Path, another_machine: Machine, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    expected = execute(shard.STAGE, _shard_spec(lake, lake / "undisturbed"))
    table = s3 / "shards"
    _killed(_die_before_shard, 4, _shard_spec(lake, table))
    assert not manifest.exists(table)
    if lost:
        location.remove([_the_one(table, lost)])
    another_machine()
    written: list[int] = []
    write_shard = write.write_shard

    def counted(task: write.Task, shard: int) -> None:
        written.append(shard)
        write_shard(task, shard)

    monkeypatch.setattr(write, "write_shard", counted)
    made = execute(shard.STAGE, _shard_spec(lake, table))
    assert written == [*([1] if lost else []), 4, 5]
    assert digests(table) == digests(lake / "undisturbed")
    assert (made.metrics, made.ledger) == (expected.metrics, expected.ledger)
    assert not kept(table)


def test_what_worker_processes_wrote_is_kept_as_well(s3: Path, lake: Path, another_machine: Machine) -> None:
    execute(shard.STAGE, _shard_spec(lake, lake / "undisturbed"))
    _killed(_die_at_the_index, _shard_spec(lake, s3 / "shards", workers=2))
    assert len([path for path in kept(s3 / "shards") if path.parent.name == "index"]) == 6
    another_machine()
    execute(shard.STAGE, _shard_spec(lake, s3 / "shards", workers=2))
    assert digests(s3 / "shards") == digests(lake / "undisturbed")


def _die_at_the_index(spec: ShardSpec) -> None:
    """Die when every shard is written."""
    write.pq.ParquetWriter = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    execute(shard.STAGE, spec)


# Translations ---------------------------------------------------------------------------------------------------------


def _caption_spec(folder: Path, output: Path) -> TranslateSpec:
    return TranslateSpec(
        output=output, raw_pairs=folder / "raw", filtered_pairs=folder / "filtered", threads=1,
        translator=short_sentence_translator(), parameters=TranslateParameters(captions_per_chunk=7),
    )  # fmt: skip


def _talk_spec(folder: Path, output: Path) -> conversations.ConversationSpec:
    return talks.spec(folder / "lines.jsonl", output)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    known = [
        *talks.QUESTIONS,
        talks.DESCRIBE,
        "nothing that the translator knows, and much too long for it " * 9,
    ]
    rows = [{**row, "caption": known[at % len(known)]} for at, row in enumerate(tables.world_rows(24))]
    tables.raw_pairs(tmp_path / "raw", rows)
    tables.filtered_pairs(tmp_path / "filtered", [row["uid"] for row in rows])
    (tmp_path / "lines.jsonl").write_text("\n".join(map(talks.json.dumps, talks.ENTRIES)))
    return tmp_path


@pytest.mark.parametrize(
    ("stage", "module", "spec_of"),
    [(translate.STAGE, captions, _caption_spec), (conversations.STAGE, talking, _talk_spec)],
    ids=["captions", "conversations"],
)
def test_a_lost_machine_costs_a_translation_only_the_chunk_in_the_making(
    stage: Stage[Any], module: Any, spec_of: Callable[[Path, Path], StageSpec], s3: Path, texts: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    expected = execute(stage, spec_of(texts, tmp_path / "undisturbed"))
    translate_chunk, asked, left = module._translate_chunk, list[int](), 2

    def on(machine: str) -> Path:
        monkeypatch.setenv("LAKE_CACHE", str(tmp_path / machine))
        return s3 / "table"

    def losing(*arguments: Any) -> Any:
        (number,) = [one for one in arguments if isinstance(one, int)]
        asked.append(number)
        if len(asked) > left:
            raise Lost
        return translate_chunk(*arguments)

    monkeypatch.setattr(module, "_translate_chunk", losing)
    with pytest.raises(Lost):
        execute(stage, spec_of(texts, on("first")))
    # Begun, and not told of in a report: another machine may translate otherwise.
    (folder,) = (tmp_path / "first").rglob("translated")
    begun = [folder / path.name.replace("1", "2") for path in folder.iterdir() if "report" not in path.name]
    for path in [path for path in begun if not path.exists()]:
        path.write_bytes(b"from another day")
    left = 4
    with pytest.raises(Lost):
        execute(stage, spec_of(texts, on("second")))
    left = 1000
    made = execute(stage, spec_of(texts, on("first")))
    assert asked == [0, 1, 2, 2, 3, 3]
    assert digests(s3 / "table") == digests(tmp_path / "undisturbed")
    assert made.ledger == expected.ledger
    assert not kept(s3 / "table")


# What all stages share ------------------------------------------------------------------------------------------------


class PartsSpec(StageSpec):
    parts: int = 4


def _parts(lose: Callable[[Work, int], None]) -> Stage[PartsSpec]:
    """A stage of parts, some of which the store loses while it runs."""

    def run(spec: PartsSpec, work: Work, progress: Progress) -> Outcome:
        work.restore([work.notes])
        for number in range(spec.parts):
            path = work.out / f"{number}.txt"
            if not work.has(path):
                path.write_text(f"part {number}")
                work.finish(path)
            lose(work, number)
        return Outcome()

    return Stage("parts", "x", PartsSpec, "1", run, "x", resumable=True)


def test_a_table_whose_objects_were_lost_before_its_publish_is_not_published_and_then_mended(
    s3: Path,
) -> None:
    def lose(work: Work, number: int) -> None:
        if number == 2:
            location.remove([s3 / work.folder.name / "1.txt"])

    with pytest.raises(BadInput, match="1 objects that this run uploaded are gone") as caught:
        execute(_parts(lose), PartsSpec(output=s3))
    assert "run it again" in caught.value.remedy
    assert not manifest.exists(s3)
    execute(_parts(lambda work, number: None), PartsSpec(output=s3))
    assert len(manifest.verify(s3).files) == 4
    assert not kept(s3)


def test_what_was_kept_goes_also_when_the_run_was_killed_right_after_its_publish(s3: Path) -> None:
    stage = _parts(lambda work, number: None)
    made = execute(stage, PartsSpec(output=s3))
    left = s3 / "_work" / made.fingerprint / "shipped" / "0.txt.json"
    location.write_bytes(left, b"{}")
    assert execute(stage, PartsSpec(output=s3)) == made
    assert not kept(s3)
