"""Recipes of systems: what variations inherit, what is refused, and that every shipped one is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines.crawls import CrawlManifest
from pipelines.errors import BadInput
from pipelines.filter.spec import FilterParameters
from pipelines.fingerprint import fingerprint
from pipelines.recipe import read_recipe
from pipelines.systems.chain import (
    EVERY_SCORE,
    TRAINERS_OWN,
    chain,
    mixture,
    optimisation,
    translated_languages,
)
from pipelines.systems.recipe import Training, merged, read_system
from pipelines.training.spec import PLAN, PRETRAIN, PlanSpec, PretrainSpec, data_order

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
        ({"tuning": {"pack_tokens": 1024}}, "1024 has no room for a sample of `text_tokens` 2048"),
        ({"tuning": {"data_worker": 2}}, "tuning.data_worker: unknown key"),
        ({"extends": "nowhere.yaml"}, "does not exist"),
        ({"extends": "bad.yaml"}, "circle"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({"extends": str(RECIPES / "parrot-7b.yaml"), **change}))

    with pytest.raises(BadInput, match=complaint):
        read_system(path)


def fingerprints(training: Training, gpus: int) -> tuple[str, str]:
    """Of the pack plan and of the training that `gpus` GPUs would do: what their work folders are named by."""
    told = optimisation(training, gpus=gpus, mixture=mixture(training))
    shards = {"cc3m": Path("shards")}
    plan = PlanSpec(
        output=Path("plan"), kind="captions", tokenizer=Path("lm"), shards=shards, **data_order(told)
    )
    spec = PretrainSpec(
        output=Path("out"), language_model=Path("lm"), vision=Path("vision"), shards=shards, pivot_language="en",
        prompts=["Describe the image."], plan=Path("plan"), optimisation=told, processes=gpus,
    )  # fmt: skip
    return fingerprint(PLAN, plan, {}), fingerprint(PRETRAIN, spec, {})


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_a_training_goes_on_where_it_was_on_another_number_of_gpus(path: Path) -> None:
    for training in read_system(path).stages.values():
        for rows in (training, training.model_copy(update={"pack_tokens": None})):
            assert len({fingerprints(rows, gpus) for gpus in (1, 2, 3, 8, 16, 32)}) == 1


def test_what_only_saves_memory_or_time_leaves_a_checkpoint_usable_and_what_changes_a_result_does_not() -> (
    None
):
    training = read_system(RECIPES / "viscpm-chat.yaml").pretraining

    def changed(**update: object) -> tuple[bool, bool]:
        before, after = fingerprints(training, 8), fingerprints(training.model_copy(update=update), 8)
        return before[0] != after[0], before[1] != after[1]

    # After an out-of-memory: the same plan, the same work folder.
    assert changed(gradient_checkpointing=not training.gradient_checkpointing) == (False, False)
    assert changed(per_gpu=2, data_workers=1, checkpoint_every=7, checkpoints_kept=5, keep_every=70) == (False, False)  # fmt: skip
    assert changed(not_finite="skip") == (False, True)
    assert changed(fused_kernels=True) == (False, True)
    assert changed(pack_tokens=4096) == (True, True)


def test_the_trainer_is_told_what_the_recipe_says() -> None:
    said = {
        "data_workers": 3, "fused_kernels": True, "compile": True, "not_finite": "skip", "most_skipped": 5,
        "checkpoint_every": 70, "checkpoints_kept": 4, "keep_every": 700,
    }  # fmt: skip
    training = read_system(RECIPES / "parrot-7b.yaml").tuning.model_copy(update=said)
    told = optimisation(training, gpus=16)

    assert set(said) == set(TRAINERS_OWN)
    assert {name: getattr(told, name) for name in said} == said


def changed_recipe(folder: Path, base: str, **change: object) -> Path:
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump({"extends": str(RECIPES / f"{base}.yaml"), **change}))
    return path


def test_a_system_takes_every_rule_of_the_filter(tmp_path: Path) -> None:
    rules = {
        "threshold": 0.2, "blocked_hash_bits": 2, "captions": {"fewest_characters": 5, "drop_cut": True},
        "most_nsfw": 0.4, "drop_hash_duplicates": False,
    }  # fmt: skip
    lists = {"nsfw_scores": ["nsfw.parquet"]}
    system = read_system(changed_recipe(tmp_path, "viscpm-chat-plus", filter=rules, screening=lists))
    native, pivot = chain(system, native=True).filter, chain(system).filter

    assert native == FilterParameters.model_validate(rules)
    # Pairs in the pivot language come under every rule but the threshold.
    assert pivot == native.model_copy(update={"threshold": EVERY_SCORE})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"screening": {"nsfw_scores": ["a.parquet"]}}, "`screening.nsfw_scores` drops nothing without `filter.most_nsfw`"),
        ({"filter": {"without_nsfw_score": "drop"}}, "`filter.without_nsfw_score` drops nothing"),
        ({"filter": {"most_nsfw": 0.5}}, "`filter.most_nsfw` needs files in `screening.nsfw_scores`"),
        ({"filter": {"treshold": 0.5}}, "filter.treshold: unknown key"),
        ({"translation": {"least_bleu": {"en-zh": 30}}}, "en-zh, which no test set measures"),
    ],
)  # fmt: skip
def test_a_setting_that_would_have_no_effect_is_refused(
    tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    with pytest.raises(BadInput, match=complaint):
        read_system(changed_recipe(tmp_path, "one-gpu", **change))
    if "translation" not in change:
        document = {**yaml.safe_load((RECIPES / "quickstart.yaml").read_text()), **change}
        (tmp_path / "quickstart.yaml").write_text(yaml.safe_dump(document))
        with pytest.raises(BadInput, match=complaint):
            read_recipe(tmp_path / "quickstart.yaml")


def test_decontamination_reads_the_benchmarks_that_the_recipe_asks(tmp_path: Path) -> None:
    from assets.systems.graph import system_graph

    rules = {"decontamination": {"hash_bits": 3, "words": 8}}
    path = changed_recipe(tmp_path, "one-gpu", facts=rules, decontamination_tables={"mine": "tables/mine"}, workspace=str(tmp_path))  # fmt: skip
    graph = system_graph(read_system(path))
    facts = next(one for one in graph.of_crawl("cc3m") if one.stage.name == "pair_facts")
    benchmarks = {name: graph.layout.table("benchmarks", name) for name in ("mmmb", "mmbench")}

    assert facts.spec("").benchmarks == {**benchmarks, "mine": Path("tables/mine")}  # type: ignore[attr-defined]
    assert {graph.layout.key("benchmarks", name) for name in benchmarks} <= set(facts.upstream)
    without = system_graph(read_system(RECIPES / "one-gpu.yaml"))
    facts = next(one for one in without.of_crawl("cc3m") if one.stage.name == "pair_facts")
    assert facts.spec("").benchmarks == {}  # type: ignore[attr-defined]


def test_a_gate_and_its_test_set_stand_before_every_translation_of_a_system(tmp_path: Path) -> None:
    from assets.systems.graph import system_graph

    told = {"least_bleu": {"en-zh": 30.0}, "test_sets": [{"name": "mine", "source": "mine.en", "reference": "mine.zh"}]}  # fmt: skip
    graph = system_graph(read_system(changed_recipe(tmp_path, "one-gpu", translation=told)))
    key = graph.layout.key("translation_benchmark", "mine_en_zh")
    scored = next(one for one in graph.assets if one.key == key)
    talks = next(one for one in graph.of_crawl("llava_instruct_150k") if one.stage.name == "translated_conversations")  # fmt: skip

    assert [check.name for check in scored.checks].count("bleu_above_gate") == 1
    assert key in talks.upstream


@pytest.mark.parametrize(
    ("name", "crawl", "languages"),
    [
        ("viscpm-chat", "cc3m", ["zh"]), ("mpm-six-languages", "cc3m", ["de", "fr", "es", "it", "pt"]),
        ("parrot-7b", "llava-1-5-pretrain", ["zh", "pt", "ar", "tr", "ru"]), ("one-gpu", "cc3m", ["zh"]),
        ("viscpm-chat-plus", None, ["zh"]),
    ],
)  # fmt: skip
def test_the_pivot_gap_is_measured_where_the_claim_is(
    name: str, crawl: str | None, languages: list[str]
) -> None:
    from assets.systems.graph import system_graph

    system = read_system(RECIPES / f"{name}.yaml")
    graph = system_graph(system)
    of_key = {one.key: one for one in graph.assets}
    key, plan = graph.layout.key("held_out_captions"), of_key[graph.layout.key("pack_plan", "pretraining")]

    assert set(languages) <= set(translated_languages(system))
    assert plan.key in of_key[graph.layout.key("finetuned")].upstream
    if crawl is None:
        # Captions in both languages are there already: the plan holds some of them out itself.
        assert key not in of_key
        return
    spec = of_key[key].spec("")
    assert spec.shards == graph.layout.crawl_table(crawl, "training_shards")  # type: ignore[attr-defined]
    assert spec.parameters.target_languages == languages  # type: ignore[attr-defined]
    assert key in plan.upstream
    assert {graph.layout.key("crawls", crawl.replace("-", "_"), "training_shards"), graph.layout.key("foundations", "translator")} <= set(of_key[key].upstream)  # fmt: skip


def test_without_a_pivot_gap_parrot_needs_no_translator(tmp_path: Path) -> None:
    from assets.systems.graph import system_graph

    graph = system_graph(read_system(changed_recipe(tmp_path, "parrot-7b", pivot_gap={"captions": 0})))
    names = {"/".join(one.key.path[1:]) for one in graph.assets}

    assert not names & {"held_out_captions", "foundations/translator"}
    with pytest.raises(BadInput, match=r"`pivot_gap\.crawl` is 'cc3m'; pretraining reads llava-1-5-pretrain"):
        read_system(changed_recipe(tmp_path, "parrot-7b", pivot_gap={"crawl": "cc3m"}))
