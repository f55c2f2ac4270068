"""Guarantees of model cards: equal trainings have equal cards, they name what the model is made of, and hubs can read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.lake.identity import file_sha256
from pipelines.lake.manifest import Manifest
from pipelines.model_card.markdown import FILE, SCORES_BEGIN, SCORES_END
from pipelines.model_card.origin import BASE, LICENSES, base_weights, licenses
from pipelines.model_card.scores import completed
from pipelines.report.benchmark_results import Cell, Leaderboard, Row
from pipelines.report.results import Score
from pipelines.stage import execute
from pipelines.training.spec import PRETRAIN, Optimisation, PretrainSpec
from tests import tables


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tables.training_inputs(tmp_path_factory.mktemp("inputs"))


def pretrained(inputs: dict[str, Path], output: Path) -> Manifest:
    return execute(
        PRETRAIN,
        PretrainSpec(
            output=output, language_model=inputs["language_model"], vision=inputs["vision"],
            shards={"week-1": inputs["shards"]}, pivot_language="en", prompts=["Describe the picture."],
            optimisation=Optimisation(steps=2, batch_size=4, learning_rates={"visual": 1e-3}, warmup_steps=1),
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def table(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    changed = manifest.read(inputs["shards"]).model_copy(
        update={"metrics": {LICENSES: {"week-1": "CC-BY | 4.0"}}}
    )
    manifest.write(inputs["shards"], changed)
    output = tmp_path_factory.mktemp("made") / "pretrained"
    pretrained(inputs, output)
    return output


def test_a_card_names_parts_data_licenses_and_every_file_by_its_digest(
    table: Path, inputs: dict[str, Path]
) -> None:
    text = manifest.file(table, FILE).read_text(encoding="utf-8")
    card = ModelCard(text)
    assert card.data.language == ["en"] and card.data.pipeline_tag == "image-text-to-text"
    for name in ("language_model", "vision", "shards"):
        assert f"`{manifest.read(inputs[name]).data_version}`" in text
    assert r"| week-1 | CC-BY \| 4.0 |" in text
    assert "| `visual.encoder` |" in text and "| `language_model` |" in text
    assert "| 0.001 |" in text and "| frozen |" in text and "| steps | 2 |" in text
    for file in manifest.files(table):
        if file.name != FILE:
            assert f"`{file_sha256(file)}`" in text
    assert manifest.read(table).metrics[LICENSES] == {"week-1": "CC-BY | 4.0"}
    assert manifest.read(table).metrics[BASE]["vision"]["stage"] == "test"


def test_equal_trainings_elsewhere_have_equal_cards(
    table: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    again = pretrained(inputs, tmp_path / "elsewhere" / "second")
    assert again.data_version == manifest.read(table).data_version
    text = manifest.file(tmp_path / "elsewhere" / "second", FILE).read_text(encoding="utf-8")
    assert text == manifest.file(table, FILE).read_text(encoding="utf-8")
    for place in (tmp_path, table, inputs["shards"]):
        assert str(place) not in text and place.parent.as_posix() not in text


def described(table: Path, **known: Any) -> Path:
    made = Manifest(
        stage="published_part", code_version="1", fingerprint="f", inputs={}, files=[], created="", seconds=0.0,
        **{"parameters": {}, **known},
    )  # fmt: skip
    table.mkdir()
    manifest.write(table, made)
    return table


def test_base_weights_are_named_by_their_hub_and_never_by_a_path(tmp_path: Path) -> None:
    def architecture(source: str) -> dict[str, Any]:
        weights = {"source": source, "sha256": "a" * 64}
        return {"architecture": {"language_model": {"weights": weights}, "visual": {"weights": None}}}

    hub = described(tmp_path / "hub", parameters=architecture("Qwen/Qwen1.5-7B-Chat"))
    local = described(tmp_path / "local", parameters=architecture(str(tmp_path)))
    assert base_weights("language_model", hub)["source"] == "Qwen/Qwen1.5-7B-Chat"
    assert base_weights("language_model", local)["source"] == "a local folder"
    assert base_weights("language_model", local)["sha256"] == "a" * 64
    assert "source" not in base_weights("vision", hub)


def test_licenses_are_gathered_from_all_tables_that_know_some(tmp_path: Path) -> None:
    one = described(tmp_path / "one", metrics={LICENSES: {"b": "MIT", "a": "CC0-1.0"}})
    other = described(tmp_path / "other")
    assert list(licenses([one, other]).items()) == [("a", "CC0-1.0"), ("b", "MIT")]


def board(cells: dict[str, Cell]) -> Leaderboard:
    def row(model: str, *, published: bool) -> Row:
        return Row(model=model, published=published, source="here", cells=cells, mean=None, gap=None)

    return Leaderboard(
        benchmark="mmmb", title="MMMB", figure="circular", unit="%", best=100.0, languages=list(cells),
        rows=[row("my_blend", published=False), row("Parrot-7B", published=True)], note="Of the world.",
    )  # fmt: skip


def test_a_completed_card_has_the_scores_for_people_and_for_hubs(table: Path) -> None:
    published = manifest.file(table, FILE).read_text(encoding="utf-8")
    cells = {"en": Cell(value=91.25, low=86.0, high=95.5), "zh": Cell(value=70.0)}
    asked = {"zh": Score(value=0.995, low=0.98, high=1.0, standard_error=0.0, n=200, clusters=100)}
    text = completed(
        published, "my_blend", [board(cells)], asked, {"scores": "0123"}, recipe="my_recipe", where="there"
    )
    card = ModelCard(text)
    results = {(one.dataset_config, one.metric_value) for one in card.data.eval_results or []}
    assert card.data.model_name == "my_blend" and results == {("en", 91.25), ("zh", 70.0)}
    assert "| MMMB | circular | English | 91.2 [86.0, 95.5] | % |" in text
    assert "| Answers | in the asked language | Chinese | 99.5 [98.0, 100.0] | % |" in text
    assert r"# my\_blend, a vision-language model: multimodal pretraining" in text
    assert "Its recipe is `my_recipe`." in text.split("## Parts")[0]
    assert (
        "`scores` `0123`" in text
        and "Of the world." in text
        and "Parrot" not in text.split("## Scores")[1].split("## Use")[0]
    )
    # All that was known before stands in it still.
    for line in published.partition(SCORES_BEGIN)[2].partition(SCORES_END)[2].splitlines():
        assert line in text


def test_what_is_no_card_of_ours_is_refused() -> None:
    with pytest.raises(BadInput, match="no place for scores") as refused:
        completed("# Something else", "blend", [], {}, {}, where="models/blend")
    assert refused.value.where == "models/blend"
