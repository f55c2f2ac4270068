"""The translator in the graph: a gate that blocks, and a published test set as an asset."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from assets import checks
from assets.graph import graph
from assets.stage_asset import StageAsset
from pipelines.lake.manifest import Manifest
from pipelines.recipe import Recipe, read_recipe
from pipelines.translate.spec import TranslateSpec
from pipelines.translation_benchmark.spec import TestSet, TranslationBenchmarkSpec

ROOT = Path(__file__).parents[2]


def manifest_with(bleu: float | None) -> Manifest:
    metrics = {} if bleu is None else {"zh": {"bleu": bleu}}
    return Manifest(
        stage="foundations/translator", code_version="1", fingerprint="", parameters={}, inputs={}, files=[],
        metrics=metrics, created="", seconds=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(("bleu", "passed"), [(80.0, True), (50.0, True), (49.9, False), (None, False)])
def test_the_gate_passes_only_a_measured_bleu_that_reaches_it(bleu: float | None, passed: bool) -> None:
    verdict = checks.bleu_above_gate("en", {"en-zh": 50.0}).judge(Path(), manifest_with(bleu))
    assert verdict.passed is passed
    assert "en-zh" in verdict.words


def test_a_pair_from_another_language_than_the_pivot_was_never_measured() -> None:
    verdict = checks.bleu_above_gate("en", {"de-zh": 50.0}).judge(Path(), manifest_with(90.0))
    assert (verdict.passed, "not measured" in verdict.words) == (False, True)


def test_a_pair_that_a_test_set_measures_needs_no_held_out_sentences() -> None:
    verdict = checks.bleu_above_gate("en", {"en-zh": 50.0}, {"en-zh"}).judge(Path(), manifest_with(None))
    assert (verdict.passed, "by its test sets" in verdict.words) == (True, True)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    read = read_recipe(ROOT / "recipes/quickstart.yaml")
    wmt17 = TestSet(name="wmt17", source="src.sgm", reference="ref.sgm")
    translation = read.translation.model_copy(update={"test_sets": [wmt17]})
    return read.model_copy(update={"workspace": tmp_path, "translation": translation})


def found(recipe: Recipe, *key: str) -> StageAsset:
    return next(one for one in graph(recipe).assets if one.key == dg.AssetKey(list(key)))


def test_the_gate_of_a_recipe_blocks_the_translator_and_the_stage_that_would_use_it(recipe: Recipe) -> None:
    names = [check.name for check in found(recipe, "quickstart", "foundations", "translator").checks]
    assert "bleu_above_gate" in names
    spec = found(recipe, "translations").spec("week-1")
    assert isinstance(spec, TranslateSpec)
    assert spec.parameters.least_bleu == {"en-zh": 50.0}
    assert spec.cache == recipe.workspace / "cache"


def test_a_test_set_of_a_recipe_is_an_asset(recipe: Recipe) -> None:
    asset = found(recipe, "quickstart", "translation_benchmark", "wmt17_en_zh")
    spec = asset.spec("")
    assert isinstance(spec, TranslationBenchmarkSpec)
    assert spec.files == {"source": Path("src.sgm"), "reference": Path("ref.sgm")}
    report = found(recipe, "quickstart", "report")
    assert asset.key in report.upstream
    assert asset.key not in found(recipe, "quickstart", "language_share", "report").upstream


def test_what_translates_waits_for_the_test_sets_that_gate_it_and_reads_their_scores(recipe: Recipe) -> None:
    key = dg.AssetKey(["quickstart", "translation_benchmark", "wmt17_en_zh"])
    assert "bleu_above_gate" in [check.name for check in found(recipe, *key.path).checks]
    for name in ("translations", "translated_conversations"):
        assert key in found(recipe, name).upstream
    spec = found(recipe, "translations").spec("week-1")
    assert isinstance(spec, TranslateSpec)
    assert spec.test_scores == [recipe.workspace / "translation_benchmark/wmt17_en_zh"]
    assert key in found(recipe, "quickstart", "instruction_mix", "blend").upstream

    for_a_look = [recipe.translation.test_sets[0].model_copy(update={"gates": False})]
    looked = recipe.model_copy(
        update={"translation": recipe.translation.model_copy(update={"test_sets": for_a_look})}
    )
    assert key not in found(looked, "translations").upstream
    assert "bleu_above_gate" not in [check.name for check in found(looked, *key.path).checks]
