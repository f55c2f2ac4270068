"""Every shipped system is a graph that Dagster loads, light, from its crawls to its last model or report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from assets.systems.graph import system_graph
from jobs.definitions import definitions
from pipelines.benchmarks.plan import OtherModel
from pipelines.launch.cluster import as_bytes
from pipelines.launch.spec import Resources
from pipelines.recipe import Recipe
from pipelines.remote.spec import Server
from pipelines.systems.read import read_any
from pipelines.systems.recipe import System, read_system
from tests.jobs.test_definitions import HEAVY

RECIPES = Path(__file__).parents[2] / "recipes"
SYSTEMS = sorted({*RECIPES.glob("*.yaml"), *RECIPES.glob("ablations/*.yaml")} - {RECIPES / "quickstart.yaml"})


def keys(job: dg.JobDefinition) -> set[str]:
    return {"/".join(key.path[1:]) for key in job.asset_layer.executable_asset_keys}


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_every_system_is_a_job_from_its_crawls_to_its_model(path: Path) -> None:
    system = read_system(path)
    defs = definitions(system)
    dg.Definitions.validate_loadable(defs)

    main = keys(defs.resolve_job_def(system.identifier))
    for stage, table in (("pretraining", "training_shards"), ("tuning", "raw_pairs")):
        for source in system.stages[stage].sources.values():
            for crawl in source.crawls:
                assert f"crawls/{crawl.replace('-', '_')}/{table}" in main
    assert main >= {
        "foundations/language_model", "foundations/vision", "pack_plan/pretraining", "pretrained", "instruction_mix",
        "pack_plan/tuning", "finetuned",
    }  # fmt: skip
    assert {f"benchmarks/{name}" for name in system.benchmarks.sources} <= main
    assert ("report" in main) == bool(system.benchmarks.sources)
    for node in defs.resolve_asset_graph().asset_nodes:
        assert node.description and node.kinds and node.owners and node.check_keys
        # Every input is made in the graph itself.
        assert all(parent.path[0] == system.identifier for parent in node.parent_keys)


def test_only_what_is_read_in_another_language_is_translated() -> None:
    plus = keys(
        definitions(read_system(RECIPES / "viscpm-chat-plus.yaml")).resolve_job_def("viscpm_chat_plus")
    )
    translated = {
        name.split("/")[1] for name in plus if name.endswith(("/translations", "/translated_conversations"))
    }
    assert translated == {"cc3m", "laion_coco", "llava_instruct_150k", "unimm_chat"}

    parrot = keys(definitions(read_system(RECIPES / "parrot-7b.yaml")).resolve_job_def("parrot_7b"))
    assert not any(name.endswith(("/translations", "/translated_conversations")) for name in parrot)
    # Its translator is for the captions that the pivot gap is measured on, and for nothing else.
    assert {"foundations/translator", "held_out_captions"} <= parrot


def test_a_crawl_and_a_stage_can_be_run_alone() -> None:
    defs = definitions(read_system(RECIPES / "one-gpu.yaml"))

    assert keys(defs.resolve_job_def("crawl_llava_instruct_150k")) == {
        *(f"crawls/llava_instruct_150k/{name}" for name in ("raw_pairs", "pair_facts", "filtered_pairs", "translated_conversations")),
        "foundations/translator",
    }  # fmt: skip
    assert keys(defs.resolve_job_def("pretrained")) == {"pretrained"}
    assert keys(defs.resolve_job_def("pack_plan")) == {"pack_plan/pretraining", "pack_plan/tuning"}


def test_trainings_ask_for_the_gpus_of_the_recipe() -> None:
    asked = {
        asset.stage.name: asset.resources
        for asset in system_graph(read_system(RECIPES / "viscpm-chat.yaml")).assets
    }

    assert (asked["pretrained"].nodes, asked["pretrained"].gpus) == (4, 8)
    assert asked["instruction_mix"].gpus == 0


def test_what_a_recipe_does_not_ask_for_is_what_the_stage_needs() -> None:
    """A language model of 14 B parameters has 28 GB in bfloat16: two cores and 8 GiB would end it at once."""
    system = read_system(RECIPES / "parrot-14b.yaml")
    asked = {asset.stage.name: asset.resources for asset in system_graph(system).assets}

    assert asked["answers"].gpus == asked["clip_scores"].gpus == 1
    assert as_bytes(asked["published_part"].memory) > 4 * 14e9
    assert min(as_bytes(one.memory) for one in asked.values()) >= 32 * 2**30

    server = Server(base_url="https://api.example/v1", model="m")
    published = OtherModel(model=Path("data/published/viscpm-chat"))
    beside = system.benchmarks.model_copy(
        update={"beside": {"other": OtherModel(server=server), "published": published}}
    )
    asked_of = {
        asset.key.path[-1]: asset.resources
        for asset in system_graph(system.model_copy(update={"benchmarks": beside})).assets
        if asset.stage.name == "answers"
    }
    assert (asked_of["finetuned"].gpus, asked_of["published"].gpus, asked_of["other"].gpus) == (1, 1, 0), (
        "a server's model needs no GPU here"
    )

    told = system.model_copy(
        update={"resources": {"default": Resources(cpus=3), "answers": Resources(cpus=5)}}
    )
    asked = {asset.stage.name: asset.resources for asset in system_graph(told).assets}
    assert asked["answers"] == Resources(cpus=5)
    assert asked["raw_pairs"] == Resources(cpus=3)
    assert asked["pretrained"].gpus == 8


def test_a_file_is_read_as_what_it_is() -> None:
    assert isinstance(read_any(RECIPES / "quickstart.yaml"), Recipe)
    assert isinstance(read_any(RECIPES / "ablations/parrot-released.yaml"), System)


def test_a_system_loads_as_the_code_location_without_anything_heavy() -> None:
    code = f"import sys, jobs; print(jobs.defs.resolve_job_def('one_gpu').name, *[name for name in {HEAVY} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "RECIPE": str(RECIPES / "one-gpu.yaml")}, cwd=RECIPES.parent,
    )  # fmt: skip
    assert loaded.stdout.split() == ["one_gpu"]
