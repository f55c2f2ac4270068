"""Recipes of systems: what variations inherit, what is refused, and that every shipped one is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines.crawls import CrawlManifest
from pipelines.errors import BadInput
from pipelines.systems.recipe import merged, read_system

RECIPES = Path(__file__).parents[2] / "recipes"
SYSTEMS = sorted([*RECIPES.glob("*.yaml"), *RECIPES.glob("ablations/*.yaml")])
SYSTEMS.remove(RECIPES / "quickstart.yaml")


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_every_recipe_is_whole_and_named_like_its_file(path: Path) -> None:
    system = read_system(path)

    assert system.name == path.stem
    for training in system.stages.values():
        assert training.total_steps > 0
        assert sum(training.mixture.values()) == pytest.approx(1)


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_every_crawl_that_a_recipe_names_has_a_manifest_of_the_right_kind_and_language(path: Path) -> None:
    system = read_system(path)

    for kind, training in (("pairs", system.pretraining), ("conversations", system.tuning)):
        for source in training.sources.values():
            for crawl in source.crawls:
                file = RECIPES / "crawls" / f"{crawl}.yaml"
                manifest = CrawlManifest.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
                assert manifest.kind == kind, crawl
                # What is in another language than the crawl's is translated, and from the pivot language only.
                assert manifest.language in {*source.languages, system.pivot_language}, crawl


def test_a_variation_names_only_what_differs() -> None:
    base = {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": 3}

    assert merged(base, {"a": {"y": 5}, "b": [9], "c": None}) == {"a": {"x": 1, "y": 5}, "b": [9]}
    assert base == {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": 3}


def test_an_architecture_is_replaced_whole() -> None:
    base = {"architecture": {"model_type": "qwen2", "rope": 1}}

    assert merged(base, {"architecture": {"model_type": "llama"}}) == {
        "architecture": {"model_type": "llama"}
    }


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tuning": {"sorces": {}}}, "tuning.sorces: unknown key"),
        ({"tuning": {"steps": 5}}, "give `steps` or `epochs`"),
        ({"pretraining": {"sources": {"llava_pretrain": {"weight": 0.5}}}}, "every source a `weight`"),
        ({"tuning": {"sources": {"llava_finetune": {"languages": ["fi"]}}}}, "is in .'fi'."),
        ({"pretraining": {"sources": {"llava_pretrain": {"crawls": ["../x"]}}}}, "names no crawl"),
        ({"extends": "nowhere.yaml"}, "does not exist"),
        ({"extends": "bad.yaml"}, "circle"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({"extends": str(RECIPES / "parrot-7b.yaml"), **change}))

    with pytest.raises(BadInput, match=complaint):
        read_system(path)
