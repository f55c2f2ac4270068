"""A system's recipe through Dagster: crawls, shards, plans, both trainings, a benchmark and the report, in one job.

The recipe extends a shipped one and gives smaller parts, whose weights lie in folders as a model hub has them.
Stages run in this process: that they are launched as processes of their own is tested elsewhere (`tests/test_chain.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch
import yaml
from transformers import CLIPConfig, CLIPModel, Qwen2Config, Qwen2ForCausalLM

from assets.resources import Compute
from assets.systems.graph import system_graph
from jobs.systems import system_definitions
from models import clip
from models.vision_language import load
from models.word_tokenizer import make_word_tokenizer
from pipelines.errors import BadInput
from pipelines.foundations.clip.make import config_of
from pipelines.foundations.clip.spec import ClipShape
from pipelines.lake import manifest
from pipelines.launch.spec import JobSpec, Report, Usage
from pipelines.stage import Stage, execute
from pipelines.systems.recipe import System, read_system
from pipelines.training.plan import PLAN_FILE, read_plan
from pipelines.world.grammar import grammar
from pipelines.world.render import jpeg
from pipelines.world.scenes import draw_scenes
from pipelines.world.text import few_sentences
from tests.benchmarks import published
from tests.small_translator import short_sentence_translator

RECIPES = Path(__file__).parents[2] / "recipes"
WORDS = {row["en"]: row["zh"] for row in few_sentences([grammar("en"), grammar("zh")])}
WIDTH = {"num_attention_heads": 2, "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64}
PAIRS, NATIVE, TALKS, STEPS = 16, 8, 8, 3
MADE: dict[str, Stage[Any]] = {}
"""The stages of the graph, by module."""


class InThisProcess(Compute):
    """Runs each stage as its process would."""

    def run(
        self, job: JobSpec, on_report: Callable[[Report], None], cancelled: Callable[[], bool] = lambda: False
    ) -> Usage:
        execute(MADE[job.module], job.spec)
        return Usage()


@dataclass(frozen=True)
class Ran:
    """A system whose job ran."""

    system: System
    result: dg.ExecuteInProcessResult

    def table(self, *names: str) -> Path:
        return self.system.folder.joinpath(*names)


def models(folder: Path) -> int:
    """A CLIP, a Chinese-CLIP and a Qwen as hubs have them; returns the number of tokens."""
    torch.manual_seed(0)
    vision = {**WIDTH, "image_size": 32, "patch_size": 16, "hidden_act": "quick_gelu"}
    CLIPModel(CLIPConfig(vision_config=vision, text_config={**WIDTH, "vocab_size": 50})).save_pretrained(
        folder / "clip"
    )
    shape = ClipShape(
        vision_width=32, vision_layers=1, text_width=32, text_layers=1, feed_forward=64, projection=32
    )
    scorer = clip.ChineseCLIP(clip.build(config_of(shape)), clip.bundled_vocabulary())
    (folder / "chinese_clip").mkdir()
    scorer.save(folder / "chinese_clip")
    tokenizer = make_word_tokenizer(
        [*WORDS, *WORDS.values(), "Describe the image. 描述这张图片。 What can be seen?"], 400
    )
    count = tokenizer.get_vocab_size()
    Qwen2ForCausalLM(
        Qwen2Config(**WIDTH, num_key_value_heads=1, vocab_size=count, max_position_embeddings=512)
    ).save_pretrained(folder / "qwen")
    tokenizer.save(os.fspath(folder / "qwen/tokenizer.json"))
    return int(count)


def crawls(folder: Path) -> None:
    """English pairs, Chinese pairs and English conversations on disk, with their manifests."""
    scenes = iter(draw_scenes(PAIRS + NATIVE + TALKS, seed=3))
    sentences = list(WORDS.items())

    def manifested(name: str, **said: object) -> None:
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"crawl": name, **said}))

    for name, language, count in (("pairs-en", "en", PAIRS), ("pairs-zh", "zh", NATIVE)):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            (folder / name / f"{index}.jpg").write_bytes(jpeg(next(scenes)))
            (folder / name / f"{index}.txt").write_text(sentences[index][language == "zh"])
        manifested(name, language=language, format="folder", files=[name])
    (folder / "pictures").mkdir()
    entries = []
    for index in range(TALKS):
        (folder / "pictures" / f"{index}.jpg").write_bytes(jpeg(next(scenes)))
        said = [("human", f"<image>\n{sentences[index][0]}"), ("gpt", sentences[index + 1][0])]
        turns = [{"from": who, "value": value} for who, value in said]
        entries.append({"id": str(index), "image": f"{index}.jpg", "conversations": turns})
    (folder / "talks.json").write_text(json.dumps(entries))
    manifested("talks", language="en", format="llava", files=["talks.json"], images={"files": ["pictures"]})


def recipe(folder: Path, tokens: int) -> Path:
    published.mmmb(folder, "en", 4)
    longest = sorted(WORDS.items(), key=lambda pair: len(pair[0]))[-12:]
    for number, language in enumerate(("en", "zh")):
        (folder / f"mine.{language}").write_text("\n".join(pair[number] for pair in longest) + "\n")
    training = {"steps": STEPS, "epochs": None, "batch_size": 4, "per_gpu": 2, "warmup_share": None, "precision": "fp32", "text_tokens": 128, "data_workers": 1}  # fmt: skip
    document = {
        "extends": str(RECIPES / "one-gpu.yaml"),
        "name": "tiny-one-gpu",
        "workspace": str(folder / "data"),
        "crawls_folder": str(folder / "crawls"),
        "architecture": {
            "visual": {
                "encoder": {"image_size": 32, "width": 32, "layers": 2, "heads": 2, "mlp_width": 64},
                "weights": {"source": str(folder / "models/clip")},
            },
            "language_model": {
                "architecture": {
                    "model_type": "qwen2", **WIDTH, "num_key_value_heads": 1, "vocab_size": tokens,
                    "max_position_embeddings": 512, "tie_word_embeddings": False,
                },
                "weights": {"source": str(folder / "models/qwen")},
            },
        },
        "pretraining": {
            **training,
            "pack_tokens": 128,
            "sources": {
                "cc3m": None,
                "both": {"crawls": ["pairs-en"], "samples": 2 * PAIRS, "languages": ["en", "zh"], "weight": 0.5},
                "native": {"crawls": ["pairs-zh"], "samples": NATIVE, "languages": ["zh"], "weight": 0.5},
            },
        },
        "tuning": {
            **training,
            "sources": {"llava_150k": {"crawls": ["talks"], "samples": 2 * TALKS, "rows": TALKS - 2}},
        },
        "filter": {"clip": str(folder / "models/chinese_clip"), "threshold": -0.99},
        "limits": {"keep_rate": [0.1, 1.0]},
        # Words alone: a picture of 16 colours is near to every other one.
        "facts": {"languages": [], "decontamination": {"words": 12}},
        "translation": {
            "translator": str(manifest.folder(short_sentence_translator()) / "hf"),
            "least_bleu": {"en-zh": 50},
            "test_sets": [{"name": "mine", "source": str(folder / "mine.en"), "reference": str(folder / "mine.zh")}],
        },
        "benchmarks": {
            "sources": {
                "mmmb": {"files": {"mmmb_en.tsv": str(folder / "mmmb_en.tsv"), "mmmb_zh.tsv": None}},
                "mmbench": None,
            }
        },
    }  # fmt: skip
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def run(system: System, instance: dg.DagsterInstance, *, raises: bool = True) -> dg.ExecuteInProcessResult:
    MADE.update({asset.stage.module: asset.stage for asset in system_graph(system).assets})
    job = system_definitions(system).resolve_job_def(system.identifier)
    return job.execute_in_process(
        instance=instance, resources={"compute": InThisProcess()}, raise_on_error=raises
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("system")


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as used:
        yield used


@pytest.fixture(scope="module")
def ran(folder: Path, instance: dg.DagsterInstance) -> Ran:
    crawls(folder / "crawls")
    system = read_system(recipe(folder, models(folder / "models")))
    return Ran(system, run(system, instance))


def test_every_table_is_made_and_known_to_dagster(ran: Ran, instance: dg.DagsterInstance) -> None:
    assert ran.result.success
    assets = system_graph(ran.system).assets
    for asset in assets:
        event = instance.get_latest_materialization_event(asset.key)
        assert event is not None, asset.key
    made = {file.parent.relative_to(ran.system.folder).as_posix() for file in ran.system.folder.rglob(manifest.MANIFEST_NAME)}  # fmt: skip
    assert len(made) == len(assets)
    assert "crawls/pairs-zh/training_shards" in made
    # Only what is read in another language is translated.
    assert "crawls/pairs-en/translations" in made and "crawls/pairs-zh/translations" not in made


def test_pretraining_reads_each_source_in_its_languages_by_its_weight(ran: Ran) -> None:
    made = manifest.read(ran.table("pack_plan", "pretraining"))
    plan = read_plan(manifest.file(ran.table("pack_plan", "pretraining"), PLAN_FILE))

    assert plan.groups == ("pairs-en/en", "pairs-en/zh", "pairs-zh/zh")
    assert plan.packed and plan.steps == STEPS
    # Half of 3 x 4 samples each, of whatever of them was kept.
    assert made.metrics["epochs"]["native"] == round(STEPS * 4 / 2 / NATIVE, 3)
    assert made.ledger is not None
    # Held out of both languages alike.
    assert made.ledger.dropped["held_out"] % 2 == 0 and made.ledger.dropped["held_out"] > 0


def test_tuning_reads_the_conversations_in_both_languages(ran: Ran) -> None:
    mix = manifest.read(ran.table("instruction_mix"))
    tuned = manifest.read(ran.table("finetuned"))

    assert mix.metrics["corpora"]["talks"]["en"] == TALKS - 2
    assert mix.metrics["corpora"]["talks"]["zh"] > 0
    assert tuned.metrics["samples_by_language"] == mix.metrics["corpora"]["talks"]
    assert tuned.metrics["steps"] == STEPS


def test_a_slice_of_a_crawl_is_taken_in_and_the_rest_counted(ran: Ran) -> None:
    made = manifest.read(ran.table("crawls", "talks", "raw_pairs"))

    assert made.ledger is not None
    assert (made.ledger.rows_in, made.ledger.kept, made.ledger.dropped) == (
        TALKS,
        TALKS - 2,
        {"beyond_slice": 2},
    )
    assert made.metrics["success_rate"] == 1.0


def test_the_model_begins_with_the_weights_of_the_folders_and_trains_what_the_recipe_says(
    ran: Ran, folder: Path
) -> None:
    hub = CLIPModel.from_pretrained(folder / "models/clip").state_dict()
    middle = load(manifest.folder(ran.table("pretrained")))
    name = "embeddings.patch_embedding.weight"

    torch.testing.assert_close(middle.visual.encoder.state_dict()[name], hub[f"vision_model.{name}"])
    words = Qwen2ForCausalLM.from_pretrained(folder / "models/qwen").state_dict()
    before, after = (load(manifest.folder(ran.table(stage))).language_model.state_dict() for stage in ("pretrained", "finetuned"))  # fmt: skip
    torch.testing.assert_close(before["model.layers.0.mlp.up_proj.weight"], words["model.layers.0.mlp.up_proj.weight"])  # fmt: skip
    assert not torch.equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])  # fmt: skip


def test_the_benchmark_of_the_recipe_is_scored_and_reported(ran: Ran) -> None:
    results = json.loads((ran.table("report") / "results.json").read_text())

    assert set(results["scores"]["models"]) == {"finetuned"}
    assert results["scores"]["languages"] == ["en"]


def test_the_translator_was_held_to_parallel_files_before_it_translated(ran: Ran) -> None:
    scored = manifest.read(ran.table("translation_benchmark", "mine_en_zh"))

    assert scored.metrics["bleu"] >= 50
    assert scored.inputs["translator"] == manifest.read(ran.table("foundations", "translator")).data_version

    # The same weights, asked for more than they reach: nothing is translated with them.
    asset = next(
        one for one in system_graph(ran.system).of_crawl("pairs_en") if one.stage.name == "translations"
    )
    spec = asset.spec("")
    harder = spec.model_copy(
        update={
            "output": ran.system.folder / "harder",
            "parameters": spec.parameters.model_copy(update={"least_bleu": {"en-zh": 100.1}}),  # type: ignore[attr-defined]
        }
    )
    with pytest.raises(BadInput, match="BLEU on the test set mine"):
        execute(asset.stage, harder)


def test_pairs_are_held_against_the_questions_of_the_benchmark(ran: Ran) -> None:
    made = manifest.read(ran.table("crawls", "pairs-en", "pair_facts"))

    assert "benchmarks.mmmb" in made.inputs


def test_a_second_run_makes_nothing(ran: Ran, instance: dg.DagsterInstance) -> None:
    before = {file: file.stat().st_mtime_ns for file in ran.system.folder.rglob(manifest.MANIFEST_NAME)}
    assert run(ran.system, instance).success
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_what_is_missing_is_named_with_its_place_in_the_recipe(ran: Ran, tmp_path: Path) -> None:
    def problem(system: System, table: str) -> BadInput:
        graph = system_graph(system)
        asset = next(one for one in graph.assets if "/".join(one.key.path[1:]) == table)
        with pytest.raises(BadInput) as caught:
            execute(asset.stage, asset.spec(""))
        return caught.value

    there = ran.system.model_copy(update={"workspace": tmp_path / "data"})
    elsewhere = there.model_copy(update={"crawls_folder": tmp_path / "none"})
    found = problem(elsewhere, "crawls/pairs_en/raw_pairs")
    assert "pairs-en, pairs-zh, talks" in found.what and str(tmp_path / "none") in str(found.where)

    (tmp_path / "mine").mkdir()
    for name in ("pairs-en", "pairs-zh", "talks"):
        text = (ran.system.crawls_folder / f"{name}.yaml").read_text()
        (tmp_path / "mine" / f"{name}.yaml").write_text(text.replace("language: zh", "language: fr"))
        (tmp_path / "mine" / name).mkdir()
    other = there.model_copy(update={"crawls_folder": tmp_path / "mine"})
    assert "language 'zh', and this is 'fr'" in problem(other, "crawls/pairs_zh/raw_pairs").what

    parts = ran.system.architecture
    gone = parts.language_model.model_copy(update={"weights": parts.language_model.weights.model_copy(update={"source": str(tmp_path / "gone")})})  # type: ignore[union-attr]  # fmt: skip
    without = there.model_copy(update={"architecture": parts.model_copy(update={"language_model": gone})})
    found = problem(without, "foundations/language_model")
    assert str(tmp_path / "gone") in str(found.where) and "architecture.language_model.weights" in str(
        found.where
    )

    served = there.model_copy(
        update={"translation": there.translation.model_copy(update={"language_model": "cpm-bee-10b"})}
    )
    assert "translation.server" in str(problem(served, "foundations/translator").where)
