"""The dry run: parameters of the real networks, and arithmetic that can be checked by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.architecture import Architecture, Bridge, ClipEncoder, LanguageModel, Lora, Visual
from models.factory import Network
from pipelines.dry_run.page import page
from pipelines.dry_run.reckon import Rates, operations, reckon, zero_bytes
from pipelines.errors import BadInput
from pipelines.systems.recipe import read_system

RECIPES = Path(__file__).parents[2] / "recipes"


def small(lora: Lora | None = None) -> Architecture:
    return Architecture(
        visual=Visual(
            encoder=ClipEncoder(image_size=28, patch_size=14, width=64, layers=2, heads=2, mlp_width=128),
            bridge=Bridge(kind="linear"),
        ),
        language_model=LanguageModel(
            architecture={
                "model_type": "qwen2", "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
                "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 64, "tie_word_embeddings": False,
            },
            lora=lora,
        ),
    )  # fmt: skip


def test_parrots_parameters_are_those_of_its_parts() -> None:
    found = reckon(read_system(RECIPES / "parrot-7b.yaml"))

    # Qwen1.5-7B has 7.72 B, CLIP ViT-L/14 at 336 pixels 0.304 B with its last layer, which is not used.
    assert found.parameters["language_model"] == pytest.approx(7.72e9, rel=0.001)
    assert found.parameters["visual.encoder"] == pytest.approx(0.291e9, rel=0.005)
    assert found.parameters["visual.bridge"] == 1024 * 4096 + 4096 + 4096 * 4096 + 4096
    assert found.parameters["visual.moe"] == 6 * (2 * (4096 * 4096 + 4096)) + 6 * 4096
    first, second = found.stages["pretraining"], found.stages["tuning"]
    assert set(first.trained) == {"visual.bridge"}
    assert set(second.trained) == {"visual.bridge", "visual.moe", "language_model"}
    assert second.fits
    assert "GPU-hours in all" in page(read_system(RECIPES / "parrot-7b.yaml"), found)


def test_zero_shares_what_its_stages_share() -> None:
    assert [zero_bytes(100, 40, 4, stage) for stage in range(4)] == [
        # Float32 weights, their gradients and what sums these, two moments.
        100 * 4 + 40 * (4 + 4 + 8),
        100 * 2 + 40 * 2 + 40 * 12 / 4,
        100 * 2 + 40 * 2 / 4 + 40 * 12 / 4,
        100 * 2 / 4 + 40 * 2 / 4 + 40 * 12 / 4,
    ]
    assert zero_bytes(100, 40, 1, 0) == 100 * 4 + 40 * (4 + 8)


def test_without_zero_a_gpu_holds_what_the_engine_holds() -> None:
    """Weights, gradients and moments of the engine itself, after a step."""
    from pipelines.training.engine import PlainEngine, join_group
    from pipelines.training.spec import Optimisation

    join_group()
    network = torch.nn.ModuleDict({"visual": torch.nn.Linear(8, 8), "language_model": torch.nn.Linear(8, 4)})
    optimisation = Optimisation(steps=1, learning_rates={"visual": 1e-3}, precision="bf16", zero_stage=0)
    engine = PlainEngine(network, optimisation)
    network["language_model"](network["visual"](torch.ones(2, 8))).sum().backward()
    held = [*network.parameters(), *(one.grad for one in network.parameters() if one.grad is not None)]
    engine.optimizer.step()
    held += [value for state in engine.optimizer.state.values() for value in state.values() if value.ndim]

    everything, trained = 8 * 9 + 4 * 9, 8 * 9
    assert sum(one.numel() * one.element_size() for one in held) == zero_bytes(everything, trained, 1, 0)


def test_operations_are_those_that_pytorch_counts() -> None:
    """2, 4 or 6 per weight and token: against torch's own counter over a forward and a backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    architecture = small()
    network = Network(architecture)
    for parameter in network.visual.encoder.parameters():
        parameter.requires_grad_(False)
    for parameter in network.language_model.parameters():
        parameter.requires_grad_(False)
    text, tokens = 12, 12 + 4
    with FlopCounterMode(display=False) as counter:
        seen = network.visual.placed(network.visual(torch.randn(1, 3, 28, 28)))
        words = network.language_model.get_input_embeddings()(torch.randint(0, 64, (1, text)))
        states = network.language_model.get_decoder()(
            inputs_embeds=torch.cat((seen, words), 1), use_cache=False
        ).last_hidden_state
        network.language_model.get_output_embeddings()(states[:, -10:]).sum().backward()

    ours = operations(network, architecture.visual, {"visual.bridge"}, tokens=tokens, supervised=10)

    # Attention of so small a model is counted whole by torch, and by half (causal) here.
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.08)


def test_lora_trains_its_adapters_alone() -> None:
    from models.parts import parts, trained_parts

    network = Network(small(Lora(rank=4, targets=["q_proj", "v_proj"])))
    trained = trained_parts(network, {"visual.bridge": 1e-3, "language_model": 1e-4})

    assert set(parts(network)) >= {"language_model", "frozen.language_model"}
    adapters = [name for name, _ in trained["language_model"].parameters]
    assert adapters
    assert all("lora_" in name for name in adapters)
    assert "frozen.language_model" not in trained


def test_a_part_that_is_not_there_is_named() -> None:
    system = read_system(RECIPES / "one-gpu.yaml")
    tuning = system.tuning.model_copy(update={"learning_rates": {"visual.moe": 1e-5}})

    with pytest.raises(BadInput, match=r"visual\.moe"):
        reckon(system.model_copy(update={"tuning": tuning}))


def test_the_command_prints_a_document_and_refuses_a_bad_number_of_gpus() -> None:
    command = [sys.executable, "-m", "pipelines.dry_run", str(RECIPES / "one-gpu.yaml")]
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, check=True, cwd=RECIPES.parent
    )
    document = json.loads(done.stdout)

    assert document["parameters"]["language_model"] == pytest.approx(0.494e9, rel=0.01)
    assert document["stages"]["tuning"]["fits"]

    refused = subprocess.run([*command, "--gpus", "9"], capture_output=True, text=True, cwd=RECIPES.parent)
    assert refused.returncode == 42
    assert "9 GPUs have 8 packed rows a step" in refused.stderr


def test_one_gpu_is_an_evening_from_its_slices_to_the_tuned_model() -> None:
    system = read_system(RECIPES / "one-gpu.yaml")
    found = reckon(system, rates=Rates(images=50, sentences=200))

    captions, talks = found.sources["cc3m"], found.sources["llava_150k"]
    assert (captions.rows, captions.sentences) == (250_000, 0)
    assert (talks.rows, talks.sentences) == (30_000, 360_000)
    assert captions.fetching_hours == pytest.approx(250_000 / 50 / 3600)
    assert talks.translating_hours == pytest.approx(0.5)
    assert found.hours < 6
    text = page(system, found)
    assert "a slice of 250,000 rows, 1.4 hours if each image is fetched" in text
    assert "360,000 sentences to translate, 0.5 hours" in text
    # What no slice bounds is reckoned by its samples: 3.3 M addresses would be 18 hours.
    whole = system.pretraining.sources["cc3m"].model_copy(update={"rows": None, "samples": 3_300_000})
    training = system.pretraining.model_copy(update={"sources": {"cc3m": whole}})
    assert reckon(system.model_copy(update={"pretraining": training})).sources["cc3m"].fetching_hours > 18


def test_rows_are_reckoned_as_they_are_packed() -> None:
    parrot = read_system(RECIPES / "parrot-7b.yaml")
    found = reckon(parrot).stages["pretraining"]

    # 256 samples of 577 + 60 tokens are 13.3 rows of 12,288; 16 GPUs shall be equally busy.
    assert (found.rows_per_step, found.accumulation, found.evenness) == (16, 1, 1.0)
    twelve = parrot.model_copy(update={"hardware": parrot.hardware.model_copy(update={"gpus": 12})})
    uneven = reckon(twelve).stages["pretraining"]
    assert (uneven.rows_per_step, uneven.accumulation, uneven.evenness) == (16, 2, 16 / 24)
    assert uneven.gpu_hours == pytest.approx(found.gpu_hours * 1.5)
    text = page(twelve, reckon(twelve))
    assert "16 packed ones a step, 83% full" in text and "the GPUs are busy for 67% of a step" in text
    assert "4 processes per GPU read ahead; a checkpoint every 200 steps, 2 kept" in text

    padded = parrot.pretraining.model_copy(update={"pack_tokens": None})
    with pytest.raises(BadInput, match="256 cannot be shared by 12 GPUs"):
        reckon(twelve.model_copy(update={"pretraining": padded}))
