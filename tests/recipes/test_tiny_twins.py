"""Every system's tiny twin goes through both training stages on a CPU: brought in, pretrained, tuned, asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import AddedToken

from models.chat_template import IMAGE_MARKER
from models.cpm_bee_chat import FIRST_PIECES
from models.vision_language import VisionLanguageModel, load
from pipelines.answer.answerer import OwnModel
from pipelines.answer.spec import STAGE as ANSWERS
from pipelines.answer.spec import AnswerParameters, AnswerSpec
from pipelines.foundations.published.spec import STAGE as PUBLISHED
from pipelines.foundations.published.spec import PublishedSpec
from pipelines.lake import manifest
from pipelines.lake.identity import pair_uid
from pipelines.lake.shards import ShardWriter, write_index
from pipelines.stage import execute
from pipelines.systems.chain import generation, optimisation
from pipelines.systems.recipe import System, read_system
from pipelines.systems.tiny import STEPS, tiny
from pipelines.training.spec import FINETUNE, PRETRAIN, FinetuneSpec, PretrainSpec
from pipelines.world import benchmark
from pipelines.world.grammar import grammar
from pipelines.world.render import draw, jpeg
from pipelines.world.scenes import draw_scenes
from tests import tables

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = [
    "viscpm-chat", "viscpm-chat-plus", "viscpm-chat-qwen3", "mpm-six-languages", "parrot-7b", "parrot-14b",
    "llava-chinese-clip", "one-gpu", "one-gpu-lora",
    "ablations/parrot-released",
]  # fmt: skip
MARKS = ("<s>", "</s>")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tokenizer of transformers with every template's marks, and a vocabulary for CPM-Bee."""
    from models.word_tokenizer import make_word_tokenizer

    folder = tmp_path_factory.mktemp("words")
    texts = [
        grammar(language).caption(scene, 0) for language in ("en", "zh") for scene in draw_scenes(60, seed=1)
    ]
    tokenizer = make_word_tokenizer(texts * 2, 300)
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in MARKS])
    tokenizer.save(os.fspath(folder / "tokenizer.json"))
    letters = sorted({letter for text in texts for letter in text} | set("imagecontxquesDrbpUAI:?. "))
    pieces = [*FIRST_PIECES, *(letter for letter in letters if letter not in " \n")]
    (folder / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    return {"tokenizer": folder / "tokenizer.json", "vocabulary": folder / "vocab.txt"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "captions": tables.training_shards(folder / "captions", 12),
        "instructions": conversations(folder / "instructions", ("en", "zh")),
    }


def conversations(table: Path, languages: Sequence[str]) -> Path:
    """Two-turn conversations, the languages taking turns; every fifth is about no image, every other fifth about two."""

    def write(folder: Path) -> None:
        with ShardWriter(folder, "shard", 12) as writer:
            for index, scene in enumerate(draw_scenes(12, seed=5)):
                language = languages[index % len(languages)]
                caption = grammar(language).caption(scene, 0)
                turns = [
                    {"question": "Describe the picture.", "answer": caption, "language": language},
                    {"question": "Again?", "answer": caption, "language": language},
                ]
                uid = pair_uid(f"http://127.0.0.1/{index}.jpg", caption)
                document = {"uid": uid, "source": "test", "turns": turns}
                further = [jpeg(draw_scenes(index + 1, seed=6)[-1])] if index % 5 == 3 else []
                if further:
                    turns[1]["question"] = f"And {IMAGE_MARKER} or {IMAGE_MARKER}?"
                image = None if index % 5 == 4 else jpeg(scene)
                writer.add(uid, image, "jpg", document, [language], further_images=further)
        write_index(folder / "index.parquet", writer.rows)

    return tables.publish(table, write)


def brought_in(system: System, folder: Path, words: dict[str, Path]) -> dict[str, Path]:
    bee = system.architecture.language_model.architecture["model_type"] == "cpm_bee"
    for part in ("language_model", "visual"):
        spec = PublishedSpec(
            output=folder / part, part=part, architecture=system.architecture,
            tokenizer=words["vocabulary" if bee else "tokenizer"],
        )  # fmt: skip
        execute(PUBLISHED, spec)
    return {"language_model": folder / "language_model", "vision": folder / "visual"}


def twin(name: str, words: dict[str, Path]) -> System:
    from tokenizers import Tokenizer

    system = read_system(RECIPES / f"{name}.yaml")
    if system.architecture.language_model.architecture["model_type"] == "cpm_bee":
        return tiny(system, len(words["vocabulary"].read_text(encoding="utf-8").split("\n")))
    return tiny(system, Tokenizer.from_file(os.fspath(words["tokenizer"])).get_vocab_size())


def weights(model: VisionLanguageModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.named_parameters()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The parts, to two levels of the names, in which a weight differs."""
    return {
        ".".join(name.split(".")[:2]) if name.startswith("visual") else "language_model"
        for name, value in after.items()
        if not torch.equal(value, before[name])
    }


def expected_parts(rates: dict[str, float], model: VisionLanguageModel) -> set[str]:
    inside = {"visual.encoder", "visual.bridge", *(["visual.moe"] if model.visual.moe is not None else [])}
    return {
        part
        for part in (*inside, "language_model")
        if any(f"{part}.".startswith(f"{rate}.") for rate in rates)
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_tiny_twin_is_pretrained_tuned_and_asked(
    name: str, words: dict[str, Path], data: dict[str, Path], tmp_path: Path
) -> None:
    system = twin(name, words)
    inputs = brought_in(system, tmp_path, words)

    pretrained = execute(
        PRETRAIN,
        PretrainSpec(
            output=tmp_path / "pretrained", shards={"week-1": data["captions"]}, pivot_language="en",
            prompts=["Describe the picture."], optimisation=optimisation(system.pretraining), **inputs,
        ),
    )  # fmt: skip
    assert pretrained.metrics["steps"] == STEPS
    execute(
        FINETUNE,
        FinetuneSpec(
            output=tmp_path / "tuned", pretrained=tmp_path / "pretrained", instructions=data["instructions"],
            optimisation=optimisation(system.tuning), lora=system.architecture.language_model.lora,
            generation=generation(system),
        ),
    )  # fmt: skip

    from models.vision_language import assemble

    start = assemble(manifest.folder(inputs["language_model"]), manifest.folder(inputs["vision"]))
    middle, end = (load(manifest.folder(tmp_path / stage)) for stage in ("pretrained", "tuned"))
    # What a stage trains changes, and nothing else does.
    assert changed(weights(start), weights(middle)) == expected_parts(
        system.pretraining.learning_rates, start
    )
    assert changed(weights(middle), weights(end)) == expected_parts(system.tuning.learning_rates, start)
    # Each of the twelve conversations has two answers; of CPM-Bee's, the first is context.
    bee = system.architecture.language_model.architecture["model_type"] == "cpm_bee"
    assert manifest.read(tmp_path / "tuned").metrics["answers_not_learned"] == (12 if bee else 0)
    images = [draw(scene) for scene in draw_scenes(2, seed=9)]
    answers = end.answer(
        images, ["Describe the picture."] * 2, max_new_tokens=3, beams=system.inference.beams
    )
    assert len(answers) == 2
    # What the recipe says of answering travels with the model, and a benchmark asks so.
    asked = OwnModel(manifest.folder(tmp_path / "tuned"), scratch=tmp_path / "seen", batch_size=2)
    assert asked.beams == system.inference.beams
    assert asked.settings["repetition_penalty"] == system.inference.repetition_penalty
    assert ("length_penalty" in asked.settings) == (asked.beams > 1)
    if end.visual.moe is not None:
        assert end.routing is not None
        torch.testing.assert_close(end.routing.sum(-1), torch.ones(len(end.routing)))
        used = manifest.read(tmp_path / "tuned").metrics["experts_by_language"]
        assert set(used) == {"en", "zh"}
        assert all(
            len(weights) == 6 and sum(weights) == pytest.approx(1, abs=1e-3) for weights in used.values()
        )


def test_lora_trains_and_publishes_a_plain_model_with_its_adapters_beside(
    words: dict[str, Path], data: dict[str, Path], tmp_path: Path
) -> None:
    from models.architecture import Lora

    system = twin("one-gpu", words)
    inputs = brought_in(system, tmp_path, words)
    whole = load_whole(inputs, tmp_path / "whole")
    rates = {"language_model": 1e-2}
    training = system.tuning.model_copy(update={"learning_rates": rates})

    execute(
        FINETUNE,
        FinetuneSpec(
            output=tmp_path / "tuned", pretrained=whole, instructions=data["instructions"],
            optimisation=optimisation(training), lora=Lora(rank=4, targets=["q_proj", "v_proj"]),
        ),
    )  # fmt: skip

    before, after = load(manifest.folder(whole)), load(manifest.folder(tmp_path / "tuned"))
    different = {
        name
        for name, value in weights(after).items()
        if not torch.equal(value, dict(before.named_parameters())[name])
    }
    assert different == {
        f"language_model.model.layers.{layer}.self_attn.{which}_proj.weight"
        for layer in range(2)
        for which in "qv"
    }
    folder = manifest.folder(tmp_path / "tuned") / "language_model" / "adapter"
    assert {path.name for path in folder.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}


def load_whole(inputs: dict[str, Path], table: Path) -> Path:
    from models.vision_language import assemble

    model = assemble(manifest.folder(inputs["language_model"]), manifest.folder(inputs["vision"]))
    return tables.publish(table, model.save)


def test_samples_with_several_images_or_none_give_the_losses_they_give_alone(
    words: dict[str, Path], tmp_path: Path
) -> None:
    """Through Parrot's experts: a sample of two images, one of none and one of one, in one batch."""
    from models.vision_language import assemble
    from pipelines.training.samples import Sample, collate

    inputs = brought_in(twin("ablations/parrot-released", words), tmp_path, words)
    model = assemble(manifest.folder(inputs["language_model"]), manifest.folder(inputs["vision"])).eval()
    squares = torch.stack(
        [torch.from_numpy(model.visual.preprocess(draw(scene))) for scene in draw_scenes(3, seed=2)]
    )
    samples = [
        Sample(model.chat.encode([(f"{IMAGE_MARKER} or {IMAGE_MARKER}", "two"), ("Again?", "red")], images=2), squares[:2].numpy()),
        Sample(model.chat.encode([("How many?", "two")]), None),
        Sample(model.chat.encode([("How many circles?", "two red")], images=1), squares[2:].numpy()),
    ]  # fmt: skip

    def losses(part: list[Sample], packed: bool) -> torch.Tensor:
        batch = collate(part, pad=model.pad_id, packed=packed)
        with torch.no_grad():
            return model(batch.ids, batch.labels, batch.pixels, batch.packing)

    alone = torch.cat([losses([sample], False) for sample in samples])
    for packed in (False, True):
        torch.testing.assert_close(losses(samples, packed), alone, atol=1e-5, rtol=1e-5)


def test_the_experts_weights_by_language_come_with_the_answers(
    words: dict[str, Path], tmp_path: Path
) -> None:
    """Parrot's Fig. 5c, measured; in the batches and order that answering chooses, and the same without them."""
    inputs = brought_in(twin("parrot-7b", words), tmp_path, words)
    model = load_whole(inputs, tmp_path / "whole")
    items = benchmark.draw_items(6, seed=1, choice=True)

    def write(folder: Path) -> None:
        for language in ("en", "zh"):
            benchmark.write_mmmb(items, language, folder / f"mmmb_{language}.tsv")

    asked = tables.publish(tmp_path / "asked", write)

    def experts(name: str, batch_size: int) -> dict[str, list[float]]:
        parameters = AnswerParameters(languages=["en", "zh"], max_new_tokens=1, stop_at_first_wrong=False)
        spec = AnswerSpec(
            output=tmp_path / name, model=model, benchmarks={"world": asked}, batch_size=batch_size,
            parameters=parameters,
        )  # fmt: skip
        found: dict[str, list[float]] = execute(ANSWERS, spec).metrics["experts"]
        return found

    together = experts("together", 16)
    assert together.keys() == {"en", "zh"} and together["en"] != together["zh"]
    assert all(len(row) == 6 and sum(row) == pytest.approx(1, abs=1e-3) for row in together.values())
    for language, row in experts("alone", 1).items():
        assert row == pytest.approx(together[language], abs=1e-3)


def test_packed_samples_of_cpm_bee_give_the_losses_and_gradients_they_give_alone(
    words: dict[str, Path], tmp_path: Path
) -> None:
    """Its mask and position bias are its own: a context that sees itself whole, and segments, in each sample of a pack."""
    from models.vision_language import assemble
    from pipelines.training.samples import Sample, collate

    inputs = brought_in(twin("viscpm-chat", words), tmp_path, words)
    model = assemble(manifest.folder(inputs["language_model"]), manifest.folder(inputs["vision"])).eval()
    scenes = draw_scenes(3, seed=4)
    squares = [model.visual.preprocess(draw(scene)) for scene in scenes]
    talks = [
        [("What is it?", "two red")],
        [("Describe the picture.", "a"), ("Again?", "one blue square")],
        [("How many?", "two")],
    ]
    samples = [
        Sample(model.chat.encode(turns, images=1), pixels)
        for turns, pixels in zip(talks, squares, strict=True)
    ]

    def step(parts: list[list[Sample]], packed: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.zero_grad()
        losses = []
        for part in parts:
            batch = collate(part, pad=model.pad_id, packed=packed)
            losses.append(model(batch.ids, batch.labels, batch.pixels, batch.packing))
        torch.cat(losses).sum().backward()
        gradients = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
        return torch.cat(losses).detach(), gradients

    alone, expected = step([[sample] for sample in samples], False)
    together, found = step([samples], True)

    assert len(alone) > 3
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=2e-4, rtol=1e-3, msg=name)


def test_an_image_that_is_larger_or_smaller_than_the_encoder_takes_is_fitted(
    words: dict[str, Path], tmp_path: Path
) -> None:
    from models.vision_language import assemble

    inputs = brought_in(twin("parrot-7b", words), tmp_path, words)
    model = assemble(manifest.folder(inputs["language_model"]), manifest.folder(inputs["vision"])).eval()

    seen = model.see([Image.new("RGB", size) for size in ((1, 40), (500, 3), (28, 28))])

    assert seen.shape == (3, model.visual.tokens, 32)
