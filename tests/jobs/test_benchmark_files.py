"""Published benchmark files and a model beside the recipe's own, as assets of a real Dagster instance."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from assets.benchmark_files import benchmark_files_assets
from assets.benchmarks import answers_asset, score_assets
from assets.layout import Layout
from assets.preflight import requests_to_servers
from jobs.definitions import definitions
from pipelines.answer.spec import AnswerSpec
from pipelines.benchmarks import answers
from pipelines.benchmarks.plan import OtherModel, Source
from pipelines.judge.spec import Judge
from pipelines.progress import QUIET_VARIABLE
from pipelines.recipe import Recipe, read_recipe
from pipelines.remote.spec import Server
from pipelines.report.spec import ReportParameters
from pipelines.score_answers.spec import ScoreAnswersSpec
from tests.benchmarks import published
from tests.chat_server import Answer, Call, serving
from tests.dagster_home import TINY_RECIPE

FILES = {"mmmb_en.tsv": Path("mmmb_en.tsv")}


def with_benchmarks(recipe: Recipe, workspace: Path, base_url: str, files: dict[str, Path]) -> Recipe:
    asked = recipe.benchmarks.model_copy(
        update={
            "sources": {"mmmb": Source(files=dict(files))},
            "beside": {"served": OtherModel(server=Server(base_url=base_url, model="served-2026"))},
        }
    )
    return recipe.model_copy(update={"workspace": workspace, "world": None, "benchmarks": asked})


def test_published_files_are_held_and_a_model_beside_answers_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(QUIET_VARIABLE, "1")
    for language in ("en", "tr"):
        published.mmmb(tmp_path, language, count=4)
    files = {f"mmmb_{language}.tsv": tmp_path / f"mmmb_{language}.tsv" for language in ("en", "tr")}

    def script(_: Call) -> Answer:
        return Answer("A")

    with serving(script) as (server, base_url), dg.instance_for_test() as instance:
        recipe = with_benchmarks(read_recipe(TINY_RECIPE), tmp_path / "data", base_url, files)
        job = definitions(recipe).resolve_implicit_global_asset_job_def()
        places = ("benchmarks/mmmb", "answers/served")
        selection = [dg.AssetKey([recipe.name, *place.split("/")]) for place in places]

        assert job.execute_in_process(instance=instance, asset_selection=selection).success
        said = answers.read(tmp_path / "data/answers/served")
        assert {(key[1], row["answer"]) for key, row in said.items()} >= {("en", "A"), ("tr", "A")}
        # An item is asked in its next rotation only where the one before was right.
        asked = sum(row["answer"] is not None for row in said.values())
        assert 8 <= asked == len(server.calls) < len(said) == 2 * 4 * 4
        # What the server said is kept with the recipe's data, wherever the command was started.
        assert (tmp_path / "data/cache/requests.sqlite").is_file()

        # The schema and the digest of the first are what later files are held to.
        published.mmmb(tmp_path, "tr", count=3)
        again = job.execute_in_process(instance=instance, asset_selection=selection, raise_on_error=False)
        assert not again.success
        (failure, *_) = [event for event in again.all_events if event.is_step_failure]
        assert "mmmb_tr.tsv" in str(failure.step_failure_data)


@pytest.mark.parametrize("workspace", ["data", "s3://bucket/lake"])
def test_what_servers_said_is_kept_with_the_recipes_other_kept_work(
    workspace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKE_CACHE", str(tmp_path / "lake"))
    place = Path(workspace) if workspace.startswith("s3:") else tmp_path / workspace
    recipe = with_benchmarks(read_recipe(TINY_RECIPE), place, "http://127.0.0.1:1/v1", FILES)
    layout = Layout(place, recipe.name)
    other = recipe.benchmarks.beside["served"]
    asked = answers_asset(recipe, layout, other, ("answers", "served"), "benchmark").spec("")
    scored, _ = score_assets(
        recipe, layout, models={}, mixes={}, answers={"served": ("answers", "served")},
        parameters=ReportParameters(pivot_language="en"),
    )  # fmt: skip
    judged = scored.spec("")
    assert isinstance(asked, AnswerSpec) and isinstance(judged, ScoreAnswersSpec)
    kept = tmp_path / ("lake/answers" if workspace.startswith("s3:") else "data/cache")
    assert asked.cache == judged.judge_cache == kept / "requests.sqlite"


def test_what_a_judge_would_be_asked_is_told_from_the_recipe_without_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(QUIET_VARIABLE, "1")
    for language in ("en", "zh"):
        published.llava(tmp_path, language)
    files = {path.name: path for path in tmp_path.glob("llava*")}
    nobody = Server(base_url="http://127.0.0.1:1/v1", model="a-judge")
    recipe = with_benchmarks(read_recipe(TINY_RECIPE), tmp_path / "data", nobody.base_url, FILES)
    asked = recipe.benchmarks.model_copy(
        update={
            "sources": {"llava": Source(files=dict(files), images=published.images(tmp_path / "images"))},
            "judge": Judge(server=nobody, swap=False),
        }
    )
    recipe = recipe.model_copy(update={"benchmarks": asked})

    def line() -> str:
        found = requests_to_servers(recipe, [])
        return next(one for one in found.splitlines() if one.startswith(f"{recipe.name}/scores: "))

    assert "not known before its inputs are there" in line()
    with dg.instance_for_test() as instance:
        job = definitions(recipe).resolve_implicit_global_asset_job_def()
        key = dg.AssetKey([recipe.name, "benchmarks", "llava"])
        assert job.execute_in_process(instance=instance, asset_selection=[key]).success
    models = len(recipe.tuning.variants) + 2
    assert f"a-judge: {models * 6} requests to make" in line()
    assert "pretrained" in line() and "still to come" in line()


def test_a_translated_benchmark_is_held_to_what_may_stay_english_before_a_model_is_asked() -> None:
    recipe = read_recipe(TINY_RECIPE)
    sources = {
        "llava": Source(files={"llava_en.jsonl": Path("en")}, translate_into=["de"]),
        "mmmb": Source(files=dict(FILES)),
    }
    recipe = recipe.model_copy(
        update={"benchmarks": recipe.benchmarks.model_copy(update={"sources": sources})}
    )
    held = {
        asset.stage.name + asset.key.path[-1]: [check.name for check in asset.checks if check.blocking]
        for asset in benchmark_files_assets(recipe, Layout(Path("data"), recipe.name))
    }
    assert "left_in_english" in held["benchmark_filesllava"]
    assert "left_in_english" not in held["benchmark_filesmmmb"]
