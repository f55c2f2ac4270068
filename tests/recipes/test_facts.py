"""Every value that a paper fixes stands in the recipe that bears its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from models.architecture import Beit3Encoder, ClipEncoder
from pipelines.benchmarks.benchmark import catalogue
from pipelines.systems.chain import crawl_uses, optimisation
from pipelines.systems.recipe import System, Training, read_system

RECIPES = Path(__file__).parents[2] / "recipes"
SYSTEMS = sorted({*RECIPES.glob("*.yaml"), *RECIPES.glob("ablations/*.yaml")} - {RECIPES / "quickstart.yaml"})


def system(name: str) -> System:
    return read_system(RECIPES / f"{name}.yaml")


def values(training: Training, *names: str) -> dict[str, Any]:
    return {name: getattr(training, name) for name in names}


@pytest.mark.parametrize("name", ["viscpm-chat", "viscpm-chat-plus"])
def test_viscpm_has_the_muffin_bridge_before_cpm_bee(name: str) -> None:
    parts = system(name).architecture

    encoder = parts.visual.encoder
    assert isinstance(encoder, Beit3Encoder)
    assert (encoder.image_size, encoder.queries, encoder.width, encoder.layers) == (224, 64, 1024, 24)
    assert parts.visual.bridge.kind == "mlp"
    assert parts.visual.preprocessing.mean == parts.visual.preprocessing.std == (0.5, 0.5, 0.5)
    language = parts.language_model.architecture
    assert (language["model_type"], language["num_layers"], language["dim_model"]) == ("cpm_bee", 48, 4096)


@pytest.mark.parametrize(("name", "steps"), [("viscpm-chat", 180_000), ("viscpm-chat-plus", 480_000)])
def test_viscpm_is_trained_as_the_paper_says(name: str, steps: int) -> None:
    stages = system(name)

    assert stages.pivot_language == "en"
    assert stages.target_languages == ["zh"]
    assert (stages.pretraining.steps, stages.pretraining.batch_size) == (steps, 768)
    assert stages.pretraining.learning_rates == {"visual": 1e-5}
    assert (stages.tuning.steps, stages.tuning.batch_size) == (80_000, 64)
    assert set(stages.tuning.learning_rates) == {"visual", "language_model"}
    languages = {name: source.languages for name, source in stages.tuning.sources.items()}
    assert languages == {"llava_150k": ["en", "zh"], "unimm_chat": ["en", "zh"], "m3it": ["en"]}
    assert (stages.inference.beams, stages.inference.repetition_penalty) == (3, 1.1)
    assert stages.filter.threshold == 0.18


def test_the_mixtures_are_those_of_table_10() -> None:
    chat, plus = system("viscpm-chat").pretraining, system("viscpm-chat-plus").pretraining

    assert {name: (one.samples, one.weight) for name, one in chat.sources.items()} == {
        "coco_vg": (626_000, 0.125), "cc": (8_400_000, 0.25), "laion_coco": (390_000_000, 0.625),
    }  # fmt: skip
    assert {name: (one.samples, one.weight) for name, one in plus.sources.items()} == {
        "coco_vg": (626_000, 0.125), "cc": (5_600_000, 0.25), "zero_wukong": (20_000_000, 0.125),
        "cc3m_bilingual": (5_600_000, 0.125), "laion_coco_bilingual": (780_000_000, 0.375),
    }  # fmt: skip
    assert all(source.languages == ["en"] for source in chat.sources.values())
    # Epochs follow from weight, steps and size; the paper's column does so for this row alone.
    assert chat.epochs_of("coco_vg") == pytest.approx(27.60, abs=0.01)


def test_six_languages_stand_on_vicuna_and_m2m_100() -> None:
    stages = system("mpm-six-languages")

    assert stages.target_languages == ["de", "fr", "es", "it", "pt"]
    assert stages.architecture.language_model.architecture["model_type"] == "llama"
    assert stages.architecture.language_model.template == "vicuna"
    assert stages.translation.translator.startswith("facebook/m2m100")
    assert stages.translation.language_model is None
    assert stages.pretraining.learning_rates == {"visual": 1e-5}
    assert list(stages.tuning.sources) == ["llava_150k"]
    assert stages.tuning.sources["llava_150k"].languages == ["en", "de", "fr", "es", "it", "pt"]
    assert stages.published["llava_test_set"] == {
        "en": 88.6, "de": 88.7, "fr": 88.2, "es": 89.8, "it": 85.9, "pt": 85.1,
    }  # fmt: skip


@pytest.mark.parametrize(("name", "width", "layers"), [("parrot-7b", 4096, 32), ("parrot-14b", 5120, 40)])
def test_parrot_is_clip_a_projector_and_six_experts_before_qwen(name: str, width: int, layers: int) -> None:
    parts = system(name).architecture

    encoder, experts = parts.visual.encoder, parts.visual.experts
    assert isinstance(encoder, ClipEncoder)
    assert (encoder.family, encoder.image_size, encoder.patch_size, encoder.layer) == ("openai", 336, 14, -2)
    assert encoder.keep_cls
    assert parts.visual.bridge.kind == "mlp"
    assert experts is not None
    assert (experts.experts, experts.form, experts.mlp_width) == (6, "paper", None)
    language = parts.language_model
    assert (language.architecture["hidden_size"], language.architecture["num_hidden_layers"]) == (
        width,
        layers,
    )
    assert language.weights is not None
    assert language.weights.source.startswith("Qwen/Qwen1.5-")


@pytest.mark.parametrize("name", ["parrot-7b", "parrot-14b"])
def test_parrot_is_trained_as_its_table_5_says(name: str) -> None:
    stages = system(name)
    common = {
        "epochs": 1, "schedule": "cosine", "weight_decay": 0.0, "precision": "bf16",
        "gradient_checkpointing": True, "text_tokens": 2048,
    }  # fmt: skip

    first, second = stages.pretraining, stages.tuning
    assert values(first, *common) == common
    assert values(second, *common) == common
    assert (first.batch_size, first.per_gpu, first.zero_stage) == (256, 16, 2)
    assert (second.batch_size, second.per_gpu, second.zero_stage) == (128, 8, 3)
    assert first.learning_rates == {"visual.bridge": 1e-3}
    assert second.learning_rates == {"visual.bridge": 2e-5, "visual.moe": 2e-5, "language_model": 2e-5}
    assert (stages.hardware.gpu, stages.hardware.gpus) == ("A100-80G", 16)
    assert stages.target_languages == ["zh", "pt", "ar", "tr", "ru"]


@pytest.mark.parametrize(
    ("name", "benchmark", "languages"),
    [
        ("viscpm-chat", "llava", "en zh"), ("viscpm-chat", "unimm", "en zh"), ("viscpm-chat-plus", "unimm", "en zh"),
        ("mpm-six-languages", "llava", "en de fr es it pt"), ("ablations/viscpm-en-both", "llava", "en zh"),
        ("parrot-7b", "mmmb", "en zh pt ar tr ru"), ("parrot-14b", "mmbench", "en zh pt ar tr ru"),
        ("llava-chinese-clip", "mmmb", "en zh"), ("llava-chinese-clip", "mmbench", "en zh"),
        ("ablations/parrot-base", "mmmb", "en zh pt ar tr ru"), ("one-gpu", "mmmb", "en zh"),
    ],
)  # fmt: skip
def test_recipes_name_the_benchmarks_of_their_papers_tables(
    name: str, benchmark: str, languages: str
) -> None:
    source = system(name).benchmarks.sources[benchmark]

    ending = catalogue()[benchmark].file.rpartition(".")[2]
    found = [file for file in source.files if re.fullmatch(rf"{benchmark}_[a-z]{{2}}\.{ending}", file)]
    named = [file.rpartition(".")[0].rpartition("_")[2] for file in found]
    assert [*named, *source.translate_into] == languages.split()


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_every_file_of_a_benchmark_is_one_that_it_reads(path: Path) -> None:
    for name, source in read_system(path).benchmarks.sources.items():
        benchmark = catalogue()[name]
        patterns = (benchmark.file, *benchmark.companions)
        for file in source.files:
            assert any(
                re.fullmatch(pattern.replace("{language}", "[a-z]{2}"), file) for pattern in patterns
            ), file


@pytest.mark.parametrize(
    ("name", "pretraining", "tuning"),
    [
        ("viscpm-chat", (2048, 32), (1024, 32)), ("viscpm-chat-plus", (2048, 32), (1024, 32)),
        ("mpm-six-languages", (2048, 32), (1024, 32)), ("parrot-7b", (12288, 16), (10240, 16)),
        ("parrot-14b", (12288, 16), (10240, 16)), ("llava-chinese-clip", (12288, 16), (10240, 16)),
        ("one-gpu", (4096, 1), (4096, 1)),
    ],
)  # fmt: skip
def test_rows_are_packed_within_the_papers_batches(
    name: str, pretraining: tuple[int, int], tuning: tuple[int, int]
) -> None:
    stages = system(name)

    assert (stages.pretraining.pack_tokens, stages.pretraining.packs_multiple) == pretraining
    assert (stages.tuning.pack_tokens, stages.tuning.packs_multiple) == tuning


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_every_system_packs_reads_ahead_and_keeps_its_gpus_equally_busy(path: Path) -> None:
    stages = read_system(path)

    for training in stages.stages.values():
        told = optimisation(training, gpus=stages.hardware.gpus)
        assert told.pack_tokens is not None and told.pack_tokens >= training.text_tokens
        assert told.data_workers > 0
        assert told.packs_multiple % stages.hardware.gpus == 0
        # Packing shares the paper's batch out; it does not change it.
        assert told.batch_size == training.batch_size


def test_one_gpu_takes_in_slices() -> None:
    stages = system("one-gpu")

    assert {use.crawl: use.rows for training in stages.stages.values() for use in crawl_uses(training)} == {
        "cc3m": 250_000, "llava-instruct-150k": 30_000,
    }  # fmt: skip


def test_parrots_data_are_those_of_its_table_1() -> None:
    stages = system("parrot-7b")

    assert {name: source.samples for name, source in stages.pretraining.sources.items()} == {
        "llava_pretrain": 558_000, "laion_caption": 12_000, "cc12m_caption": 645_000,
    }  # fmt: skip
    assert {name: source.samples for name, source in stages.tuning.sources.items()} == {
        "llava_finetune": 665_000, "sharegpt4v_zh": 71_000, "sharegpt4v_pt": 14_000, "sharegpt4v_ar": 12_000,
        "sharegpt4v_tr": 17_000, "sharegpt4v_ru": 14_000,
    }  # fmt: skip
    assert stages.tuning.samples == 793_000


def test_llava_with_chinese_clip_differs_from_parrot_by_encoder_experts_and_data() -> None:
    ours, parrot = system("llava-chinese-clip"), system("parrot-7b")

    encoder = ours.architecture.visual.encoder
    assert isinstance(encoder, ClipEncoder)
    assert (encoder.family, encoder.layer, encoder.keep_cls) == ("chinese", -2, False)
    assert ours.architecture.visual.experts is None
    assert ours.architecture.language_model == parrot.architecture.language_model
    assert ours.pretraining.samples == 558_000
    assert ours.tuning.samples == 665_000
    assert ours.tuning.learning_rates == {"visual.bridge": 2e-5, "language_model": 2e-5}
    assert ours.published == {"mmbench": {"en": 68.1, "zh": 68.3}, "mmmb": {"en": 67.6, "zh": 66.1}}


@pytest.mark.parametrize(
    ("name", "pretraining", "tuning", "score"),
    [
        ("viscpm-zh-zh", {"zh"}, {"zh"}, 85.5),
        ("viscpm-en-zh", {"en"}, {"zh"}, 86.3),
        ("viscpm-en-both", {"en"}, {"en", "zh"}, 88.0),
        ("viscpm-native-both", {"en", "zh"}, {"en", "zh"}, 87.8),
        ("viscpm-translated-both", {"en", "zh"}, {"en", "zh"}, 88.2),
    ],
)
def test_table_5a_varies_the_languages_of_data_alone(
    name: str, pretraining: set[str], tuning: set[str], score: float
) -> None:
    ours, base = system(f"ablations/{name}"), system("viscpm-chat")

    def spoken(training: Training) -> set[str]:
        return {language for source in training.sources.values() for language in source.languages}

    assert spoken(ours.pretraining) == pretraining
    assert spoken(ours.tuning) == tuning
    assert list(ours.tuning.sources) == ["llava_150k"]
    assert ours.architecture == base.architecture
    assert ours.pretraining.steps == base.pretraining.steps
    assert ours.published == {"llava_test_set": {"zh": score}}


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("ablations/parrot-base", ""), ("ablations/parrot-zh", "zh"), ("ablations/parrot-zh-pt", "zh pt"),
        ("ablations/parrot-zh-pt-ar", "zh pt ar"), ("ablations/parrot-zh-pt-ar-tr", "zh pt ar tr"),
        ("parrot-7b", "zh pt ar tr ru"), ("ablations/parrot-pt", "pt"), ("ablations/parrot-ar", "ar"),
        ("ablations/parrot-tr", "tr"), ("ablations/parrot-ru", "ru"),
    ],
)  # fmt: skip
def test_tables_3_and_9_add_languages_to_the_tuning_data(name: str, added: str) -> None:
    ours, full = system(name), system("parrot-7b")

    expected = ["llava_finetune", *(f"sharegpt4v_{language}" for language in added.split())]
    assert ours.tuning.sources == {source: full.tuning.sources[source] for source in expected}
    assert ours.pretraining == full.pretraining
    assert ours.architecture == full.architecture


def test_table_8_has_a_recipe_per_row() -> None:
    rows = {
        "ablations/llava-vicuna": ("openai", "llama", (65.4, 58.3, 67.1, 58.8)),
        "ablations/llava-qwen": ("openai", "qwen2", (68.8, 66.4, 68.2, 62.4)),
        "llava-chinese-clip": ("chinese", "qwen2", (68.1, 68.3, 67.6, 66.1)),
    }
    for name, (family, language, scores) in rows.items():
        ours = system(name)
        encoder = ours.architecture.visual.encoder
        assert isinstance(encoder, ClipEncoder)
        assert encoder.family == family
        assert ours.architecture.language_model.architecture["model_type"] == language
        table = [ours.published[benchmark][one] for benchmark in ("mmbench", "mmmb") for one in ("en", "zh")]
        assert tuple(table) == scores
