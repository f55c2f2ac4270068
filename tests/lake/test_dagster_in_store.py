"""Dagster's own jobs with a workspace in an object store: from a registered crawl to an instruction mix, nothing on this disk."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from assets.partitions import crawl_record, register_crawl
from jobs.definitions import definitions
from pipelines.lake import location, manifest
from pipelines.lake.shards import ShardReader
from pipelines.progress import QUIET_VARIABLE
from pipelines.recipe import read_recipe
from tests import conversation_corpus, tables
from tests.conversation_corpus import entry
from tests.dagster_home import TINY_RECIPE

TALKS = [
    entry("plain", "0.jpg", "What is to be seen?", "A red circle above a green square."),
    entry("text", None, "Why is the sky blue?", "The air scatters the blue light."),
]


@pytest.mark.slow
def test_jobs_run_in_a_workspace_in_the_store(
    s3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(QUIET_VARIABLE, "1")
    workspace = s3 / "workspace"
    tiny = read_recipe(TINY_RECIPE)
    recipe = tiny.model_copy(
        update={
            "workspace": workspace,
            "world": None,
            "tuning": tiny.tuning.model_copy(update={"variants": {"english_only": 0.0}}),
            "language_share": tiny.language_share.model_copy(update={"shares": [0.0]}),
        }
    )
    crawl = conversation_corpus.write(tmp_path / "corpus", TALKS, {"0.jpg": tables.world_rows(1)[0]["image"]})
    with dg.instance_for_test() as instance:
        register_crawl(crawl, workspace, instance)
        assert location.is_file(crawl_record(workspace, "talks"))
        defs = definitions(recipe)
        for job, partition in (("ingest_conversations", "talks"), ("instruction_mix", None)):
            done = defs.resolve_job_def(job).execute_in_process(instance=instance, partition_key=partition)
            assert done.success
        # Again: every table is found in the store and reused.
        again = defs.resolve_job_def("instruction_mix").execute_in_process(instance=instance)
        (made,) = again.get_asset_materialization_events()
        assert made.materialization.metadata["reused"].value is True
    reader = ShardReader(workspace / "instruction_mix" / "english_only")
    assert [reader.images(place) for place in range(len(reader))] == [1, 0]
    filtered = manifest.read(workspace / "crawls" / "talks" / "filtered_pairs")
    assert filtered.metrics["without_image"] == 1
    assert not list((tmp_path / "cache").rglob("*.tar"))
    assert not Path("s3:").exists()
