"""Takedown: what was demanded is found wherever it is, leaves the next publish, and stays on the list."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import BadInput
from pipelines.filter.spec import STAGE as FILTER
from pipelines.filter.spec import FilterSpec
from pipelines.instructions.spec import STAGE as MIX
from pipelines.instructions.spec import InstructionSpec
from pipelines.lake import manifest
from pipelines.lake.shards import ShardReader
from pipelines.lake.takedown import Demands
from pipelines.shard.spec import STAGE, ShardParameters, ShardSpec
from pipelines.stage import InputTable, Outcome, Stage, StageSpec, Work, execute
from pipelines.takedown import keep
from pipelines.takedown.spec import Demand
from tests import conversation_corpus, tables

ROOT = Path(__file__).parents[2]
ROWS = tables.world_rows(12)
for number, row in enumerate(ROWS):
    row["url"] = f"https://{['a.example.org', 'b.example.org', 'c.example.com'][number % 3]}/{number}.jpg"
IN_B = [row["uid"] for row in ROWS[1::3]]


class ModelSpec(StageSpec):
    shards: dict[str, InputTable]


def train(spec: ModelSpec, work: Work, progress: Any) -> Outcome:
    (work.out / "model.safetensors").write_bytes(b"weights")
    return Outcome()


MODEL = Stage("pretrained", "tests.model", ModelSpec, "1", train, "Trains.")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A crawl from raw pairs to shards, and a model made from these."""
    crawl = tmp_path / "crawls" / "week-1"
    raw = tables.raw_pairs(crawl / "raw_pairs", ROWS)
    made = manifest.read(raw)
    manifest.write(raw, made.model_copy(update={"stage": "raw_pairs"}))
    tables.filtered_pairs(crawl / "filtered_pairs", [row["uid"] for row in ROWS])
    execute(STAGE, shard_spec(tmp_path))
    execute(MODEL, ModelSpec(output=tmp_path / "pretrained", shards={"week-1": crawl / "training_shards"}))
    return tmp_path


def shard_spec(workspace: Path) -> ShardSpec:
    crawl = workspace / "crawls" / "week-1"
    takedown = workspace / "takedown"
    return ShardSpec(
        output=crawl / "training_shards", raw_pairs=crawl / "raw_pairs", filtered_pairs=crawl / "filtered_pairs",
        takedown=takedown if manifest.exists(takedown) else None, parameters=ShardParameters(samples_per_shard=4),
    )  # fmt: skip


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.takedown", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_domain_leaves_the_next_publish_and_every_trace_of_it_is_listed(workspace: Path) -> None:
    table = workspace / "crawls" / "week-1" / "training_shards"
    index = pq.read_table(manifest.file(table, "index.parquet")).to_pylist()
    before = manifest.read(table).data_version

    done = command("--workspace", str(workspace), "--domain", "B.example.org", "--note", "by mail", "--json")
    found = json.loads(done.stdout)

    assert sorted(row["uid"] for row in found["rows"]["crawls/week-1/raw_pairs"]) == sorted(IN_B)
    listed = {(one["table"], one["shard"]): one["rows"] for one in found["shards"]}
    for shard in {row["shard"] for row in index}:
        count = sum(row["uid"] in IN_B for row in index if row["shard"] == shard)
        assert listed.get(("crawls/week-1/training_shards", shard), 0) == count
    assert [(one["table"], one["checkpoints"][0].split("/")[1]) for one in found["made_from_them"]] == [
        ("pretrained", "model.safetensors")
    ]

    made = execute(STAGE, shard_spec(workspace))
    assert made.data_version != before
    assert made.ledger is not None
    assert made.ledger.dropped == {"taken_down": len(IN_B)}
    assert made.ledger.rows_in == len(ROWS)
    assert set(ShardReader(table).uids.to_pylist()) == {row["uid"] for row in ROWS} - set(IN_B)
    dropped = pq.read_table(manifest.file(table, "dropped.parquet")).to_pylist()
    assert sorted(row["uid"] for row in dropped) == sorted(IN_B)

    # The checkpoint was made from shards that no longer exist, and is still named.
    again = command("--workspace", str(workspace), "--domain", "b.example.org")
    assert "checkpoint" in again.stdout
    assert before in again.stdout


def test_a_model_is_traced_through_any_number_of_publishes_since(workspace: Path) -> None:
    """It was made from shards that two later demands have replaced, and its own base was replaced, too."""
    execute(MODEL, ModelSpec(output=workspace / "finetuned", shards={"base": workspace / "pretrained"}))
    for domain in ("b.example.org", "c.example.com"):
        assert command("--workspace", str(workspace), "--domain", domain).returncode == 0
        execute(STAGE, shard_spec(workspace))

    def retrain(spec: ModelSpec, work: Work, progress: Any) -> Outcome:
        (work.out / "model.safetensors").write_bytes(b"clean")
        return Outcome()

    clean = Stage("pretrained", "tests.model", ModelSpec, "2", retrain, "Trains.")
    shards = workspace / "crawls" / "week-1" / "training_shards"
    execute(clean, ModelSpec(output=workspace / "pretrained", shards={"week-1": shards}))

    done = command("--workspace", str(workspace), "--domain", "c.example.com", "--json", "--dry-run")
    made = json.loads(done.stdout)["made_from_them"]
    assert [(one["table"], one["is_current"]) for one in made] == [("finetuned", True), ("pretrained", False)]
    # The last shards, and what was made from them, are clean of it.
    clean_version = manifest.read(workspace / "pretrained").data_version
    assert clean_version not in {one["data_version"] for one in made}


def test_what_stood_in_a_version_whose_index_was_lost_is_not_called_clean(workspace: Path) -> None:
    table = workspace / "crawls" / "week-1" / "training_shards"
    manifest.file(table, "index.parquet").write_bytes(b"damaged")
    execute(STAGE, shard_spec(workspace))
    found = command("--workspace", str(workspace), "--domain", "b.example.org", "--dry-run")
    assert "pretrained" in found.stdout


def test_the_filter_drops_what_is_demanded_under_its_own_reason(tmp_path: Path) -> None:
    raw = tables.raw_pairs(tmp_path / "raw", ROWS, shards=1)

    def scores(folder: Path) -> None:
        known = {"uid": [row["uid"] for row in ROWS], "score": pa.array([0.5] * len(ROWS), pa.float32())}
        pq.write_table(pa.table(known), folder / "scores-00000.parquet")

    scored = tables.publish(tmp_path / "scores", scores)
    made = manifest.read(scored)
    manifest.write(scored, made.model_copy(update={"inputs": {"raw_pairs": manifest.read(raw).data_version}}))
    keep.add(tmp_path, [Demand(kind="domain", value="b.example.org")], [])
    filtered = execute(
        FILTER,
        FilterSpec(
            output=tmp_path / "filtered", raw_pairs=raw, clip_scores=scored, takedown=tmp_path / "takedown",
        ),
    )  # fmt: skip
    assert filtered.ledger is not None
    assert filtered.ledger.dropped == {"taken_down": len(IN_B)}


def test_a_url_is_found_whatever_its_scheme_and_nothing_else_is(workspace: Path) -> None:
    done = command(
        "--workspace", str(workspace), "--url", "http://A.example.org:80/0.jpg#x", "--json", "--dry-run"
    )
    assert [row["uid"] for row in json.loads(done.stdout)["rows"]["crawls/week-1/raw_pairs"]] == [
        ROWS[0]["uid"]
    ]
    assert not manifest.exists(workspace / "takedown")


def test_demands_are_added_and_kept(workspace: Path) -> None:
    keep.add(workspace, [Demand(kind="domain", value="a.example.org")], [])
    demands, _ = keep.add(
        workspace,
        [Demand(kind="url", value="https://x.org/1"), Demand(kind="domain", value="a.example.org")],
        [],
    )
    assert [one.value for one in demands] == ["a.example.org", "https://x.org/1"]
    assert keep.read(workspace / "takedown")[0] == demands


@pytest.mark.parametrize("domain", ["org", "https://x.org", "x.org/path", ""])
def test_what_is_no_domain_is_refused_and_the_list_stays(workspace: Path, domain: str) -> None:
    done = command("--workspace", str(workspace), "--domain", domain)
    assert done.returncode == 42
    assert not manifest.exists(workspace / "takedown")


def test_an_empty_workspace_is_named(tmp_path: Path) -> None:
    done = command("--workspace", str(tmp_path), "--domain", "x.org")
    assert done.returncode == 42
    assert str(tmp_path) in done.stderr


HOSTS = [
    "example.org",
    "www.example.org",
    "notexample.org",
    "example.org.evil.com",
    "EXAMPLE.ORG",
    "example.org.",
    "bücher.de",
]


@given(urls=st.lists(st.tuples(st.sampled_from(["http", "https", "HTTP"]), st.sampled_from(HOSTS), st.sampled_from(["", ":80", ":8080"]),
                               st.sampled_from(["/a.jpg", "/b.jpg?x=1", "/", ""])), max_size=8),
       extra=st.lists(st.text(max_size=20), max_size=3))  # fmt: skip
def test_the_vectorised_match_agrees_with_the_one_by_one(
    urls: list[tuple[str, str, str, str]], extra: list[str]
) -> None:
    demands = Demands.of(
        ["https://notexample.org/a.jpg", "images/7.jpg"], ["example.org", "xn--bcher-kva.de"]
    )
    texts = [f"{scheme}://{host}{port}{path}" for scheme, host, port, path in urls] + [*extra, "images/7.jpg"]
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    matched = demands.match(pa.chunked_array([pa.array(clean, pa.string())])).to_pylist()
    assert matched == [demands.demands(text) for text in clean]
    assert matched[-1] is True


def test_a_host_that_only_ends_like_a_domain_is_not_it() -> None:
    demands = Demands.of([], ["example.org"])
    with pytest.raises(BadInput):
        Demands.of([], ["org"])
    assert [demands.demands(f"http://{host}/") for host in HOSTS] == [
        True,
        True,
        False,
        False,
        True,
        True,
        False,
    ]


def test_conversations_are_traced_into_the_mix_and_leave_it(tmp_path: Path) -> None:
    images = {f"{at}.jpg": row["image"] for at, row in enumerate(ROWS[:2])}
    talks = [
        conversation_corpus.entry("bad", "0.jpg", "What?", "A cat."),
        conversation_corpus.entry("good", "1.jpg", "What?", "A dog."),
        conversation_corpus.entry("text", None, "Why?", "Because."),
    ]
    crawl = conversation_corpus.write(tmp_path / "corpus", talks, images)
    workspace = tmp_path / "data"
    folder = workspace / "crawls" / "talks"
    raw = conversation_corpus.taken_in(crawl, folder / "raw_pairs")

    def mix() -> int:
        listed = workspace / "takedown"
        kept = FilterSpec(
            output=folder / "filtered_pairs", raw_pairs=raw, takedown=listed if manifest.exists(listed) else None,
        )  # fmt: skip
        execute(FILTER, kept)
        spec = InstructionSpec(
            output=workspace / "instruction_mix", corpora={"talks": raw}, filtered={"talks": kept.output}
        )
        execute(MIX, spec)
        return len(ShardReader(workspace / "instruction_mix"))

    assert mix() == 3
    model = ModelSpec(output=workspace / "finetuned", shards={"mix": workspace / "instruction_mix"})
    execute(MODEL, model)
    done = command("--workspace", str(workspace), "--url", "http://images.example/0.jpg", "--json")
    found = json.loads(done.stdout)
    assert len(found["rows"]["crawls/talks/raw_pairs"]) == 1
    assert ("instruction_mix", 1) in [(one["table"], one["rows"]) for one in found["shards"]]
    assert [one["table"] for one in found["made_from_them"]] == ["finetuned"]
    assert mix() == 2
