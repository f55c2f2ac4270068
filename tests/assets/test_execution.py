"""A recipe's `execution` reaches the stages' specs, changes no result, and takes nothing that would."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets.graph import graph
from assets.systems.graph import system_graph
from pipelines.crawls import read_manifest
from pipelines.errors import BadInput
from pipelines.fingerprint import parameters
from pipelines.recipe import read_recipe
from pipelines.stage import StageSpec
from pipelines.systems.recipe import System, read_system

RECIPES = Path(__file__).parents[2] / "recipes"
TOLD = {
    "training_shards": {"workers": 3},
    "clip_scores": {"device": "cuda", "batch": 512},
    "translated_conversations": {"device": "cuda", "threads": 4},
}


def system(execution: dict[str, dict[str, object]], folder: Path) -> System:
    return read_system(RECIPES / "one-gpu.yaml").model_copy(
        update={"execution": execution, "workspace": folder}
    )


def spec(made: System, crawl: str, stage: str) -> StageSpec:
    return next(one for one in system_graph(made).of_crawl(crawl) if one.stage.name == stage).spec("")


@pytest.mark.parametrize(
    ("crawl", "stage"),
    [
        ("cc3m", "training_shards"),
        ("cc3m", "clip_scores"),
        ("llava_instruct_150k", "translated_conversations"),
    ],
)
def test_what_the_recipe_says_stands_in_the_spec_and_not_in_the_fingerprint(
    crawl: str, stage: str, tmp_path: Path
) -> None:
    told, plain = (spec(system(said, tmp_path), crawl, stage) for said in (TOLD, {}))

    assert {name: getattr(told, name) for name in TOLD[stage]} == TOLD[stage]
    assert parameters(told) == parameters(plain)


def test_the_quickstarts_kind_of_recipe_takes_it_too(tmp_path: Path) -> None:
    recipe = read_recipe(RECIPES / "quickstart.yaml")
    recipe = recipe.model_copy(
        update={"workspace": tmp_path, "execution": {"training_shards": {"workers": 3}}}
    )
    shards = next(one for one in graph(recipe).assets if one.stage.name == "training_shards").spec("week-1")

    assert shards.workers == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"raw_pear": {"workers": 2}}, "no stage is called raw_pear"),
        ({"raw_pairs": {"workers": 0}}, "0 is no value for it"),
        ({"raw_pairs": {"parameters": "x"}}, "parameters cannot be set"),
        ({"translated_conversations": {"device": "tpu"}}, "'tpu' is no value for it"),
        ({"translated_conversations": {"cache": "/elsewhere"}}, "cache cannot be set"),
        ({"pretrained": {"processes": 3}}, "processes cannot be set"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_runs(
    said: dict[str, dict[str, object]], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=complaint) as caught:
        system_graph(system(said, tmp_path))
    assert str(caught.value.where).startswith("recipe: execution")


def test_a_source_says_how_many_rows_of_its_crawl_are_taken_in(tmp_path: Path) -> None:
    (tmp_path / "crawls").mkdir()
    (tmp_path / "Train_GCC-training.tsv").write_text("a cat\thttp://example.org/a.jpg\n")
    for name in ("cc3m", "llava-instruct-150k"):
        text = (RECIPES / f"crawls/{name}.yaml").read_text()
        (tmp_path / "crawls" / f"{name}.yaml").write_text(f"root: {tmp_path}\n{text}")
    made = system({"raw_pairs": {"workers": 8, "threads_per_worker": 32}}, tmp_path).model_copy(
        update={"crawls_folder": tmp_path / "crawls"}
    )
    taken = spec(made, "cc3m", "raw_pairs")

    assert (taken.workers, taken.threads_per_worker) == (8, 32)  # type: ignore[attr-defined]
    assert read_manifest(taken.crawl).rows == 250_000  # type: ignore[attr-defined]
