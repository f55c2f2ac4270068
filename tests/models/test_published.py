"""Published checkpoints by their own names: whole models written in their layouts, read back, and found equal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from models import published
from models.architecture import Beit3Encoder, Bridge, ClipEncoder, Visual, Weights
from models.beit3 import FIRST_POSITION
from models.factory import load_visual
from models.visual import VisualModule
from models.weights import WeightsError

BEIT3 = Beit3Encoder(
    image_size=32, patch_size=16, queries=4, width=16, layers=2, heads=2, mlp_width=24, text_positions=8
)
CLIP = ClipEncoder(image_size=28, patch_size=14, width=16, layers=3, heads=2, mlp_width=32)


def beit3_checkpoint(module: VisualModule, words: Tensor) -> dict[str, Tensor]:
    """What microsoft published, for the weights of `module`: names of torchscale, with what is not used here."""
    state = {
        f"beit3.{name.removeprefix('encoder.')}": value + torch.randn_like(value)
        for name, value in module.state_dict().items()
        if name.startswith("encoder.") and name != "encoder.queries"
    }
    return {**state, "beit3.text_embed.weight": words, "beit3.vision_embed.mask_token": torch.zeros(1, 1, 16)}


def module_of(encoder: Beit3Encoder | ClipEncoder) -> VisualModule:
    torch.manual_seed(3)
    return VisualModule(Visual(encoder=encoder, bridge=Bridge(kind="mlp")), 8)


def test_beit3_weights_find_their_places_and_its_marks_begin_the_queries(tmp_path: Path) -> None:
    words = torch.randn(5, 16)
    checkpoint = beit3_checkpoint(module_of(BEIT3), words)
    path = tmp_path / "beit3_large_patch16_224.pth"
    torch.save({"model": checkpoint}, path)

    config = Visual(encoder=BEIT3, weights=Weights(source=str(path), layout="beit3"))
    loaded = load_visual(config, 8)

    for name, value in loaded.encoder.state_dict().items():
        if name != "queries":
            assert torch.equal(value, checkpoint[f"beit3.{name}"]), name
    queries = loaded.encoder.get_parameter("queries")
    assert torch.equal(queries[0], words[0])
    assert torch.equal(queries[-1], words[2])


def test_positions_are_interpolated_for_larger_images() -> None:
    state = beit3_checkpoint(module_of(BEIT3), torch.randn(3, 16))
    larger = BEIT3.model_copy(update={"image_size": 64})

    found = published.beit3(larger, state)["encoder.embed_positions.A.weight"]

    before = state["beit3.encoder.embed_positions.A.weight"]
    assert found.shape == (FIRST_POSITION + 1 + 16, 16)
    assert torch.equal(found[:3], before[:3])
    torch.testing.assert_close(found[3:].mean(0), before[3:].mean(0), atol=0.2, rtol=0)


def test_viscpm_brings_its_queries_and_its_connector(tmp_path: Path) -> None:
    donor = module_of(BEIT3)
    checkpoint = {f"vpm.{name}": value for name, value in beit3_checkpoint(donor, torch.randn(3, 16)).items()}
    checkpoint |= {
        "query": torch.randn(4, 16), "mapping.0.weight": torch.randn(8, 16), "mapping.0.bias": torch.randn(8),
        "mapping.2.weight": torch.randn(8, 8), "mapping.2.bias": torch.randn(8),
        "vpm.mim_head.weight": torch.randn(2, 2), "llm.input_embedding.weight": torch.randn(2, 2),
    }  # fmt: skip
    path = tmp_path / "viscpm_chat.pt"
    torch.save(checkpoint, path)

    config = Visual(
        encoder=BEIT3, bridge=Bridge(kind="mlp"), weights=Weights(source=str(path), layout="viscpm")
    )
    loaded = load_visual(config, 8)

    state = loaded.state_dict()
    assert torch.equal(state["encoder.queries"], checkpoint["query"])
    assert torch.equal(state["bridge.2.weight"], checkpoint["mapping.2.weight"])
    name = "encoder.layers.1.self_attn.q_proj.B.weight"
    assert torch.equal(state[f"encoder.{name}"], checkpoint[f"vpm.beit3.{name}"])


@pytest.mark.parametrize("prefix", ["vision_model.", "", "model.vision_tower.vision_tower.vision_model."])
def test_clip_is_found_in_transformers_and_in_llavas_layout(tmp_path: Path, prefix: str) -> None:
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    whole = CLIPModel(
        CLIPConfig(
            vision_config={**shape, "image_size": 28, "patch_size": 14, "hidden_act": "quick_gelu"},
            text_config={**shape, "vocab_size": 20, "max_position_embeddings": 8}, projection_dim=8,
        )
    ).eval()  # fmt: skip
    state = {name.replace("vision_model.", prefix, 1): value for name, value in whole.state_dict().items()}
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "model.safetensors")

    config = Visual(encoder=CLIP, weights=Weights(source=str(tmp_path)))
    loaded = load_visual(config, 8).eval()

    pixels = torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        expected = whole.vision_model(pixels, output_hidden_states=True).hidden_states[-2]
        torch.testing.assert_close(loaded.encoder(pixels), expected)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("run",)

    path = tmp_path / "evil.pt"
    torch.save({"model": Evil()}, path)

    with pytest.raises(WeightsError, match=r"can be read safely"):
        published.read(path)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    checkpoint = beit3_checkpoint(module_of(BEIT3), torch.randn(3, 16))
    del checkpoint["beit3.encoder.layer_norm.A.weight"]
    path = tmp_path / "part.pt"
    torch.save(checkpoint, path)

    with pytest.raises(WeightsError, match=r"lacks encoder\.encoder\.layer_norm\.A\.weight"):
        load_visual(Visual(encoder=BEIT3, weights=Weights(source=str(path), layout="beit3")), 8)
