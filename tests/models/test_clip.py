"""Guarantees of Chinese-CLIP, on random weights held against cn_clip, the reference implementation."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import cn_clip.clip
import numpy as np
import pytest
import torch
from cn_clip.clip.model import CLIP, convert_weights
from cn_clip.clip.utils import image_transform
from PIL import Image, ImageDraw

from models import clip as chinese_clip
from models import weights
from models.clip import ChineseCLIP, cosine
from models.weights import WeightsError

SIDE = 48
CAPTIONS = ["两个红色圆形", "one big blue square", "", "点击这里查看更多图片。" * 10, "a"]


def reference(*, half: bool = False) -> CLIP:
    """A small CLIP of cn_clip with random weights, also where training would start from zeros."""
    torch.manual_seed(3)
    model = CLIP(
        embed_dim=32, image_resolution=SIDE, vision_layers=2, vision_width=128, vision_patch_size=12,
        vocab_size=21128, text_attention_probs_dropout_prob=0.1, text_hidden_act="gelu",
        text_hidden_dropout_prob=0.1, text_hidden_size=128, text_initializer_range=0.02,
        text_intermediate_size=256, text_max_position_embeddings=64, text_num_attention_heads=2,
        text_num_hidden_layers=2, text_type_vocab_size=2,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    if half:
        convert_weights(model)
    return model.eval()


def save_pt(model: CLIP, path: Path) -> Path:
    """As cn_clip's training saves a checkpoint."""
    state = OrderedDict((f"module.{name}", value) for name, value in model.state_dict().items())
    torch.save({"epoch": 3, "name": "test", "state_dict": state}, path)
    return path


def picture(mode: str = "RGB", size: tuple[int, int] = (70, 50)) -> Image.Image:
    generator = np.random.default_rng(5)
    noise = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    ImageDraw.Draw(image).ellipse((5, 5, 40, 40), fill=(200, 30, 30))
    return image.convert(mode)


def odd_images() -> dict[str, Image.Image]:
    transparent = picture("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(transparent.size))
    palette_with_transparency = picture().quantize(16)
    palette_with_transparency.info["transparency"] = 3
    deep = Image.fromarray((np.arange(60 * 40, dtype=np.uint16) * 27).reshape(40, 60))
    rotated = picture()
    rotated.getexif()[0x0112] = 6
    return {
        "rgb": picture(),
        "palette": picture().quantize(16),
        "palette with transparency": palette_with_transparency,
        "alpha": transparent,
        "grey with alpha": transparent.convert("LA"),
        "grey": picture("L"),
        "one bit": picture("1"),
        "cmyk": picture("CMYK"),
        "ycbcr": picture("YCbCr"),
        "16 bit": deep,
        "32 bit": deep.convert("I"),
        "float": picture("F"),
        "one pixel wide": picture(size=(1, 300)),
        "one pixel": picture(size=(1, 1)),
        "exif rotation": rotated,
        "already square": picture(size=(SIDE, SIDE)),
        "large": picture(size=(900, 700)),
    }


@pytest.mark.parametrize("name", odd_images())
def test_pixels_equal_those_of_cn_clip(name: str) -> None:
    image = odd_images()[name]
    expected = image_transform(SIDE)(image)
    assert torch.equal(chinese_clip.pixels([chinese_clip.square(image, SIDE)])[0], expected)


@pytest.fixture(scope="module")
def pt_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pt(reference(), tmp_path_factory.mktemp("pt") / "clip_cn_small.pt")


@pytest.fixture(scope="module")
def loaded(pt_file: Path) -> ChineseCLIP:
    return chinese_clip.load(pt_file)


def reference_scores(model: CLIP, images: list[Image.Image], captions: list[str]) -> torch.Tensor:
    transform = image_transform(SIDE)
    with torch.no_grad():
        seen, read, _ = model(
            torch.stack([transform(image) for image in images]), cn_clip.clip.tokenize(captions)
        )
    return seen @ read.T


def test_scores_of_a_cn_clip_checkpoint_equal_cn_clips_within_1e_4(loaded: ChineseCLIP) -> None:
    images = list(odd_images().values())
    expected = reference_scores(reference(), images, CAPTIONS)
    found = loaded.encode(images) @ loaded.encode_text(CAPTIONS).T
    assert (found - expected).abs().max() < 1e-4
    assert expected.std() > 0.01, "scores that are all alike would prove nothing"


def test_a_half_precision_checkpoint_is_scored_in_float32(tmp_path: Path) -> None:
    model = reference(half=True)
    found = chinese_clip.load(save_pt(model, tmp_path / "half.pt"))
    expected = reference_scores(model.float(), [picture()], CAPTIONS)
    assert (found.encode([picture()]) @ found.encode_text(CAPTIONS).T - expected).abs().max() < 1e-4


def test_a_score_depends_neither_on_the_batch_nor_on_its_padding(loaded: ChineseCLIP) -> None:
    together = loaded.encode_text(CAPTIONS)
    alone = torch.cat([loaded.encode_text([caption]) for caption in CAPTIONS])
    assert torch.allclose(together, alone, atol=1e-5)


def test_cosine_is_of_row_with_row(loaded: ChineseCLIP) -> None:
    images = loaded.encode([picture(), picture("L")])
    texts = loaded.encode_text(CAPTIONS[:2])
    assert torch.allclose(cosine(images, texts), (images @ texts.T).diagonal(), atol=1e-6)
    assert torch.allclose(images.norm(dim=1), torch.ones(2), atol=1e-6)


def test_a_saved_model_is_loaded_with_the_same_scores_and_saved_with_the_same_bytes(
    loaded: ChineseCLIP, tmp_path: Path
) -> None:
    loaded.save(tmp_path / "first")
    again = chinese_clip.load(tmp_path / "first", sha256=weights.digest(tmp_path / "first"))
    assert torch.equal(again.encode([picture()]), loaded.encode([picture()]))
    assert torch.equal(again.encode_text(CAPTIONS), loaded.encode_text(CAPTIONS))
    again.save(tmp_path / "second")
    assert weights.digest(tmp_path / "first") == weights.digest(tmp_path / "second")


def test_a_saved_folder_is_one_that_transformers_loads_whole(loaded: ChineseCLIP, tmp_path: Path) -> None:
    from transformers import ChineseCLIPImageProcessor, ChineseCLIPModel

    loaded.save(tmp_path / "model")
    network, report = ChineseCLIPModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    state = {name: value.clone() for name, value in loaded.network.state_dict().items()}
    # transformers sets the embedding of padding, which is masked everywhere, to zero.
    state["text_model.embeddings.word_embeddings.weight"][0] = 0
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    processor = ChineseCLIPImageProcessor.from_pretrained(tmp_path / "model")
    found = processor(picture(size=(90, 30)), return_tensors="pt")["pixel_values"]
    assert found.shape == (1, 3, SIDE, SIDE)
    assert (found[0] - image_transform(SIDE)(picture(size=(90, 30)))).abs().max() < 0.05


def test_a_folder_without_its_vocabulary_is_refused_by_name(loaded: ChineseCLIP, tmp_path: Path) -> None:
    loaded.save(tmp_path / "model")
    (tmp_path / "model/vocab.txt").unlink()
    with pytest.raises(WeightsError, match=r"lacks vocab\.txt"):
        chinese_clip.load(tmp_path / "model")


def test_a_folder_with_a_pickle_instead_of_safetensors_is_refused(
    loaded: ChineseCLIP, tmp_path: Path
) -> None:
    loaded.save(tmp_path / "model")
    (tmp_path / "model/model.safetensors").rename(tmp_path / "model/pytorch_model.bin")
    with pytest.raises(WeightsError, match="pickle"):
        chinese_clip.load(tmp_path / "model")


def test_weights_of_another_shape_are_refused(loaded: ChineseCLIP, tmp_path: Path) -> None:
    loaded.save(tmp_path / "model")
    config = tmp_path / "model/config.json"
    config.write_text(config.read_text().replace('"projection_dim": 32', '"projection_dim": 16'))
    with pytest.raises(WeightsError, match="do not fit the architecture"):
        chinese_clip.load(tmp_path / "model")


def test_a_truncated_safetensors_file_is_refused(loaded: ChineseCLIP, tmp_path: Path) -> None:
    loaded.save(tmp_path / "model")
    path = tmp_path / "model/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="no whole safetensors file"):
        chinese_clip.load(tmp_path / "model")


def test_a_checkpoint_of_another_digest_than_the_pinned_is_refused(pt_file: Path) -> None:
    with pytest.raises(WeightsError, match="is pinned"):
        chinese_clip.load(pt_file, sha256="0" * 64)


def test_a_truncated_checkpoint_is_refused(pt_file: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes(pt_file.read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"no cn_clip checkpoint"):
        chinese_clip.load(tmp_path / "cut.pt")


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    torch.save({"state_dict": {"visual.conv1.weight": Payload()}}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match="read safely"):
        chinese_clip.load(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_a_resnet_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"visual.conv1.weight": torch.zeros(1, 3, 3, 3)}}, tmp_path / "rn50.pt")
    with pytest.raises(WeightsError, match="no vision transformer"):
        chinese_clip.load(tmp_path / "rn50.pt")


def test_a_hub_folder_without_safetensors_is_taken_by_its_checkpoint(pt_file: Path, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/clip_cn_vit-b-16.pt").write_bytes(pt_file.read_bytes())
    assert chinese_clip.load(tmp_path / "hub").image_size == SIDE
