"""Guarantees of what Dagster loads: it is whole, light, and changes only on purpose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from assets.graph import graph, share_name
from jobs.definitions import DEFAULT_RECIPE, definitions
from pipelines.recipe import Recipe, read_recipe
from tests.dagster_home import TINY_RECIPE, Home

SNAPSHOT = Path(__file__).with_name("quickstart_graph.txt")
HEAVY = (
    "torch",
    "transformers",
    "deepspeed",
    "ctranslate2",
    "pyarrow",
    "pandas",
    "matplotlib",
    "PIL",
    "lingua",
)


@pytest.fixture(scope="module")
def quickstart() -> Recipe:
    return read_recipe(DEFAULT_RECIPE)


def described(defs: dg.Definitions) -> str:
    """Assets with group, partitions, inputs and checks; then jobs with their assets."""
    lines = []
    for node in sorted(defs.resolve_asset_graph().asset_nodes, key=lambda node: node.key):
        per = " per crawl" if node.partitions_def is not None else ""
        lines.append(f"{node.key.to_user_string()} [{node.group_name}]{per}")
        lines += [f"    from {key.to_user_string()}" for key in sorted(node.parent_keys)]
        lines += [f"    check {check.name}" for check in sorted(node.check_keys, key=lambda key: key.name)]
    for job in sorted(defs.resolve_all_job_defs(), key=lambda job: job.name):
        if not job.name.startswith("__"):
            tags = "".join(f" {key}={value}" for key, value in job.tags.items())
            lines.append(f"job {job.name}{tags}")
            keys = sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys)
            lines += [f"    {key}" for key in keys]
    return "\n".join(lines) + "\n"


def test_the_graph_and_the_jobs_are_as_recorded(quickstart: Recipe) -> None:
    found = described(definitions(quickstart))
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(found)
    assert found == SNAPSHOT.read_text(), "run with UPDATE_SNAPSHOTS=1 if the change is meant"


@pytest.mark.parametrize("recipe", [DEFAULT_RECIPE, TINY_RECIPE], ids=lambda path: path.stem)
def test_all_definitions_are_valid(recipe: Path) -> None:
    dg.Definitions.validate_loadable(definitions(read_recipe(recipe)))


def test_every_asset_tells_a_person_what_it_is(quickstart: Recipe) -> None:
    for node in definitions(quickstart).resolve_asset_graph().asset_nodes:
        assert node.description
        assert node.kinds
        assert node.owners
        assert node.code_version
        assert node.check_keys


def test_a_recipe_without_a_world_has_no_world_asset_and_leaves_crawls_to_ingest(quickstart: Recipe) -> None:
    defs = definitions(quickstart.model_copy(update={"world": None}))
    dg.Definitions.validate_loadable(defs)
    assert dg.AssetKey("world") not in defs.resolve_asset_graph().get_all_asset_keys()
    main = defs.resolve_job_def("quickstart")
    assert not main.tags
    assert dg.AssetKey("raw_pairs") not in main.asset_layer.executable_asset_keys


def test_the_sweep_does_not_tune_again_what_the_main_chain_tunes(quickstart: Recipe) -> None:
    main_share = next(iter(quickstart.tuning.variants.values()))
    assert main_share in quickstart.language_share.shares
    tuned = [asset.key.path[-1] for asset in graph(quickstart).of_stage("finetuned")]
    assert share_name(main_share) not in tuned
    assert len(tuned) == len(set(quickstart.language_share.shares) | set(quickstart.tuning.variants.values()))


def test_the_code_location_loads_without_anything_heavy() -> None:
    code = f"import sys, jobs; print(*[name for name in {HEAVY} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_a_misspelt_recipe_is_an_error_that_names_the_key(tmp_path: Path) -> None:
    home = Home.make(tmp_path)
    home.change_recipe("filter:", "filtre:")
    ended = home.run("dagster", "definitions", "validate", "-m", "jobs")
    assert ended.returncode != 0
    assert "filtre: unknown key" in ended.stdout + ended.stderr
