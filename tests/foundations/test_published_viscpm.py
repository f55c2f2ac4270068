"""VisCPM-Chat as it is published, one pickle with both halves: brought in, equal to its parts, talked with and scored.

The names below are those of the authors' code (VisCPM/models: VLU_CPMBee, CPMBeeTorch, torchscale's BEiT3), written
out, so that a change of names here cannot go along with one there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models import factory, pickled, published
from models.architecture import Architecture, Beit3Encoder, Bridge, LanguageModel, Visual, Weights
from models.cpm_bee_chat import FIRST_PIECES
from models.generation import read_generation
from models.vision_language import VisionLanguageModel, load
from models.visual import VisualModule
from models.weights import WeightsError, file_digest
from pipelines.answer.spec import STAGE as ANSWERS
from pipelines.answer.spec import AnswerParameters, AnswerSpec
from pipelines.documents import load as load_document
from pipelines.errors import BadInput
from pipelines.foundations.published.spec import STAGE as PUBLISHED
from pipelines.foundations.published.spec import PublishedSpec
from pipelines.lake import manifest
from pipelines.score_answers.spec import STAGE as SCORES
from pipelines.score_answers.spec import ScoreAnswersSpec
from pipelines.stage import execute
from pipelines.systems.chain import generation
from pipelines.systems.recipe import read_system
from pipelines.training.spec import Generation
from pipelines.world import benchmark
from pipelines.world.render import draw, jpeg
from pipelines.world.scenes import draw_scenes
from tests import tables

RECIPES = Path(__file__).parents[2] / "recipes"
LETTERS = sorted(set("imagecontxquesDrbpUAI:?.tdlfhwykv"))
PIECES = [*FIRST_PIECES, *LETTERS]
ENCODER = Beit3Encoder(
    image_size=32, patch_size=16, queries=4, width=16, layers=2, heads=2, mlp_width=24, text_positions=8
)
BEE = {
    "model_type": "cpm_bee", "vocab_size": len(PIECES), "dim_model": 32, "dim_ff": 48, "num_layers": 2, "num_heads": 2,
    "dim_head": 16, "position_bias_num_buckets": 8, "position_bias_num_segment_buckets": 80,
    "position_bias_max_distance": 16,
}  # fmt: skip
FILE = "pytorch_model.v1.bin"


def llm(shape: dict[str, Any], device: str = "cpu") -> dict[str, Tensor]:
    """CPMBeeTorch's half, in half precision."""
    width, inner, heads = shape["dim_model"], shape["dim_ff"], shape["num_heads"] * shape["dim_head"]
    rows = shape["position_bias_num_buckets"] + shape["position_bias_num_segment_buckets"]
    sizes: dict[str, tuple[int, ...]] = {
        "input_embedding.weight": (shape["vocab_size"], width),
        "position_bias.relative_attention_bias": (rows, shape["num_heads"]),
        "encoder.output_layernorm.weight": (width,),
    }
    for number in range(shape["num_layers"]):
        layer = f"encoder.layers.{number}"
        sizes |= {
            f"{layer}.self_att.layernorm_before_attention.weight": (width,),
            f"{layer}.self_att.self_attention.project_q.weight": (heads, width),
            f"{layer}.self_att.self_attention.project_k.weight": (heads, width),
            f"{layer}.self_att.self_attention.project_v.weight": (heads, width),
            f"{layer}.self_att.self_attention.attention_out.weight": (width, heads),
            f"{layer}.ffn.layernorm_before_ffn.weight": (width,),
            f"{layer}.ffn.ffn.w_in.w_0.weight": (inner, width),
            f"{layer}.ffn.ffn.w_in.w_1.weight": (inner, width),
            f"{layer}.ffn.ffn.w_out.weight": (width, inner),
        }
    return {
        f"llm.{name}": torch.randn(size, dtype=torch.float16, device=device) for name, size in sizes.items()
    }


def vpm(encoder: Beit3Encoder) -> dict[str, Tensor]:
    """BEiT3Wrapper's part, with what is not used here."""
    width, inner, patch = encoder.width, encoder.mlp_width, encoder.patch_size
    places = (encoder.image_size // patch) ** 2 + 3
    sizes: dict[str, tuple[int, ...]] = {
        "beit3.text_embed.weight": (10, width),
        "beit3.vision_embed.mask_token": (1, 1, width),
        "beit3.vision_embed.cls_token": (1, 1, width),
        "beit3.vision_embed.proj.weight": (width, 3, patch, patch),
        "beit3.vision_embed.proj.bias": (width,),
        "beit3.encoder.embed_positions.A.weight": (places, width),
        "beit3.encoder.embed_positions.B.weight": (encoder.text_positions, width),
        "mim_head.weight": (8192, width),
        "mim_head.bias": (8192,),
    }

    def twice(name: str, *size: int) -> None:
        for expert in "AB":
            before, _, after = name.partition("*")
            sizes[f"beit3.encoder.{before}{expert}{after}.weight"] = size
            sizes[f"beit3.encoder.{before}{expert}{after}.bias"] = size[:1]

    twice("layer_norm.*", width)
    for number in range(encoder.layers):
        layer = f"layers.{number}"
        for norm in ("self_attn.inner_attn_ln", "self_attn_layer_norm", "final_layer_norm"):
            twice(f"{layer}.{norm}.*", width)
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            twice(f"{layer}.self_attn.{projection}.*", width, width)
        twice(f"{layer}.ffn.*.fc1", inner, width)
        twice(f"{layer}.ffn.*.fc2", width, inner)
        twice(f"{layer}.ffn.*.ffn_layernorm", inner)
    return {f"vpm.{name}": torch.randn(size, dtype=torch.float16) for name, size in sizes.items()}


def checkpoint() -> dict[str, Tensor]:
    """A whole small checkpoint."""
    torch.manual_seed(5)
    width, language = ENCODER.width, BEE["dim_model"]
    return {
        "query": torch.randn(ENCODER.queries, width, dtype=torch.float16),
        **vpm(ENCODER),
        **llm(BEE),
        "mapping.0.weight": torch.randn(language, width, dtype=torch.float16),
        "mapping.0.bias": torch.randn(language, dtype=torch.float16),
        "mapping.2.weight": torch.randn(language, language, dtype=torch.float16),
        "mapping.2.bias": torch.randn(language, dtype=torch.float16),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the hub's repository: the checkpoint, another one, and no vocabulary."""
    made = tmp_path / "VisCPM-Chat"
    made.mkdir()
    torch.save(checkpoint(), made / FILE)
    (made / "viscpm_chat_balance_checkpoint.pt").write_bytes(b"another checkpoint")
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return made


def architecture(folder: Path, **weights: Any) -> Architecture:
    source = Weights(**{"source": str(folder), "file": FILE, "layout": "viscpm", **weights})
    return Architecture(
        visual=Visual(encoder=ENCODER, bridge=Bridge(kind="mlp"), weights=source),
        language_model=LanguageModel(
            architecture=BEE, weights=source, vocabulary=str(folder.parent / "vocab.txt"), template="cpm_bee"
        ),
    )


def brought_in(folder: Path) -> Path:
    table = folder.parent / "model"
    told = Generation(num_beams=3, max_new_tokens=5, repetition_penalty=1.1, length_penalty=3)
    spec = PublishedSpec(output=table, part="model", architecture=architecture(folder), generation=told)
    execute(PUBLISHED, spec)
    return table


def expected(name: str) -> str:
    """The published name of a parameter here."""
    if name.startswith("language_model."):
        return name.replace("language_model.", "llm.", 1)
    if name.startswith("visual.bridge."):
        return name.replace("visual.bridge.", "mapping.", 1)
    if name == "visual.encoder.queries":
        return "query"
    return name.replace("visual.encoder.", "vpm.beit3.", 1)


def test_the_published_checkpoint_becomes_one_model_whose_every_weight_is_the_checkpoints(
    folder: Path,
) -> None:
    model = load(manifest.folder(brought_in(folder)))

    written, taken = checkpoint(), set()
    for name, value in model.state_dict().items():
        assert torch.equal(value, written[expected(name)].float()), name
        taken.add(expected(name))
    # What stays behind is known: BEiT-3's heads and text embeddings, which VisCPM does not use either.
    assert written.keys() - taken == {
        "vpm.beit3.text_embed.weight", "vpm.beit3.vision_embed.mask_token", "vpm.mim_head.weight", "vpm.mim_head.bias",
    }  # fmt: skip
    assert read_generation(manifest.folder(brought_in(folder))) == {
        "num_beams": 3, "length_penalty": 3, "repetition_penalty": 1.1,
    }  # fmt: skip


def test_it_answers_as_the_parts_that_were_put_in(folder: Path) -> None:
    model = load(manifest.folder(brought_in(folder)))
    state = {name: value.float() for name, value in checkpoint().items()}
    language = factory.language_model(LanguageModel(architecture=BEE, weights=None))
    language.load_state_dict({name[4:]: value for name, value in state.items() if name.startswith("llm.")})
    visual = VisualModule(Visual(encoder=ENCODER, bridge=Bridge(kind="mlp")), 32)
    names = {name: expected(f"visual.{name}") for name in visual.state_dict()}
    visual.load_state_dict({own: state[name] for own, name in names.items()})
    reference = VisionLanguageModel(visual, language, model.tokenizer, template="cpm_bee").eval()

    images = [draw(scene) for scene in draw_scenes(2, seed=9)]
    asked = ["What is it?", "And the image?"]
    answers = model.answer(images, asked, max_new_tokens=6, beams=3)

    assert answers == reference.answer(images, asked, max_new_tokens=6, beams=3)
    assert torch.equal(model.see(images), reference.see(images))


def test_it_is_talked_with_and_scored(folder: Path, tmp_path: Path) -> None:
    table = brought_in(folder)
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(jpeg(draw_scenes(1, seed=3)[0]))
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.chat", "--model", str(table), "--image", str(picture),
         "--ask", "What is it?", "--ask", "And?", "--max-new-tokens", "4"],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the best of 3 beams" in done.stderr

    items = benchmark.draw_items(2, seed=8, choice=True)
    questions = tables.publish(
        tmp_path / "questions", lambda out: benchmark.write_mmmb(items, "en", out / "mmmb_en.tsv")
    )
    execute(
        ANSWERS,
        AnswerSpec(
            output=tmp_path / "answers", model=table, benchmarks={"world": questions},
            parameters=AnswerParameters(max_new_tokens=3),
        ),
    )  # fmt: skip
    spec = ScoreAnswersSpec(
        output=tmp_path / "scores",
        answers={"published": tmp_path / "answers"},
        benchmarks={"world": questions},
    )
    execute(SCORES, spec)
    scores = json.loads(manifest.file(tmp_path / "scores", "scores.json").read_text(encoding="utf-8"))
    assert list(scores["models"]) == ["published"]


def test_one_half_leaves_the_other_on_the_disk(tmp_path: Path) -> None:
    size = 64 << 20
    path = tmp_path / FILE
    torch.save(
        {**checkpoint(), "vpm.beit3.text_embed.weight": torch.zeros(size // 32, 16, dtype=torch.float16)},
        path,
    )

    before = _own_memory()
    taken = published.viscpm_language_model(pickled.read(path))
    assert sum(value.float().sum().item() for value in taken.values()) != 0

    assert path.stat().st_size > size
    assert _own_memory() - before < size // 4


def _own_memory() -> int:
    """Bytes of this process's memory that are no mapped file."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


Change = Callable[[dict[str, Tensor]], object]
LAYER = "llm.encoder.layers.1.ffn.ffn.w_out.weight"
FAULTS: dict[str, tuple[Change, str, str]] = {
    "a weight of the language model is missing": (lambda state: state.pop(LAYER), "language_model", r"lacks encoder\.layers\.1\.ffn\.ffn\.w_out\.weight"),
    "a whole part of it is missing": (lambda state: state.pop("llm.position_bias.relative_attention_bias"), "language_model", r"lacks position_bias"),
    "a weight is left over": (lambda state: state.update({"llm.lm_head.weight": torch.zeros(2)}), "language_model", r"has no place here for lm_head\.weight"),
    "a weight has another shape": (lambda state: state.update({LAYER: torch.zeros(3, 2)}), "language_model", r"\[3, 2\] instead of \[32, 48\]"),
    "there is no language model": (lambda state: [state.pop(name) for name in list(state) if name.startswith("llm.")], "visual", r"it has no llm\."),
    "the queries are missing": (lambda state: state.pop("query"), "visual", r"it has no query"),
    "the connector has one layer": (lambda state: [state.pop(f"mapping.2.{name}") for name in ("weight", "bias")], "visual", r"lacks bridge\.2"),
    "positions are missing": (lambda state: state.pop("vpm.beit3.encoder.embed_positions.A.weight"), "visual", r"lacks encoder\.encoder\.embed_positions\.A"),
    "something is no part of it": (lambda state: state.update({"vae.weight": torch.zeros(2)}), "visual", r"it has vae\.weight"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(folder: Path, fault: str) -> None:
    change, part, message = FAULTS[fault]
    state = checkpoint()
    change(state)
    torch.save(state, folder / FILE)
    spec = PublishedSpec(output=folder.parent / "model", part="model", architecture=architecture(folder))

    with pytest.raises(BadInput, match=message) as caught:
        execute(PUBLISHED, spec)

    assert FILE in caught.value.where and f"architecture.{part}.weights" in caught.value.where


def test_the_file_its_digest_and_its_vocabulary_are_held(folder: Path) -> None:
    def language(**changes: Any) -> LanguageModel:
        return architecture(folder, **changes).language_model

    factory.load_language_model(language(sha256=file_digest(folder / FILE)))
    with pytest.raises(WeightsError, match="is pinned"):
        factory.load_language_model(language(sha256="0" * 64))
    with pytest.raises(WeightsError, match=r"holds 2 checkpoints: .*v1.*balance"):
        factory.load_language_model(language(file=None))
    with pytest.raises(WeightsError, match=r"there is no pytorch_model\.v2\.bin"):
        factory.load_language_model(language(file="pytorch_model.v2.bin"))
    factory.load_language_model(language(file=None, source=str(folder / FILE)))
    with pytest.raises(WeightsError, match=r"no vocab\.txt beside the weights"):
        factory.load_language_model(language().model_copy(update={"vocabulary": None}))
    (folder / "vocab.txt").write_text("\n".join(PIECES[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(WeightsError, match=f"has {len(PIECES) - 1} pieces"):
        factory.load_language_model(language().model_copy(update={"vocabulary": str(folder)}))


def test_the_published_spec_is_the_papers_system_with_the_authors_weights() -> None:
    spec = load_document(PublishedSpec, RECIPES / "published" / "viscpm-chat.yaml")
    system = read_system(RECIPES / "viscpm-chat.yaml")

    def bare(parts: Architecture) -> dict[str, Any]:
        own = {"weights", "vocabulary"}
        return parts.model_dump(exclude={"visual": {"weights"}, "language_model": own})

    assert bare(spec.architecture) == bare(system.architecture)
    assert spec.generation == generation(system)
    # The full size, without its memory: every published tensor has a place of its shape.
    shape = spec.architecture.language_model.architecture
    skeleton = factory.skeleton(spec.architecture).language_model
    published.put(
        skeleton, published.viscpm_language_model({**checkpoint_heads(), **llm(shape, "meta")}), where="meta"
    )


def checkpoint_heads() -> dict[str, Tensor]:
    """A tensor of each other part."""
    return {name: torch.zeros(1) for name in ("query", "vpm.x", "mapping.x")}
