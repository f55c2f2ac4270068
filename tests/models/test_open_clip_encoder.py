"""Guarantees of open_clip models as pair encoders, on a tiny XLM-RoBERTa one with random weights, made by open_clip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig

from models import open_clip_encoder, pair_encoder, weights
from models.open_clip_encoder import OpenCLIP
from models.weights import WeightsError

SIDE = 32
CAPTIONS = [
    "zwei rote Kreise",
    "dos círculos rojos a la izquierda de un cuadrado azul",
    "два красных круга",
    "a",
]


def write_tokenizer(folder: Path) -> int:
    """A tokenizer in Hugging Face's format with XLM-RoBERTa's special tokens; returns its size."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(CAPTIONS * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    ).save_pretrained(folder)
    return tokenizer.get_vocab_size()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in open_clip's layout, as open_clip's own factory makes it."""
    folder = tmp_path_factory.mktemp("open_clip")
    vocabulary = write_tokenizer(folder)
    XLMRobertaConfig(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=40, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    ).save_pretrained(folder / "text_config")  # fmt: skip
    text = {
        "hf_model_name": str(folder / "text_config"), "hf_tokenizer_name": str(folder),
        "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler", "hf_model_pretrained": False,
        "context_length": 24,
    }  # fmt: skip
    vision = {"image_size": SIDE, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    document = {
        "model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    torch.manual_seed(1)
    network = open_clip.create_model(f"local-dir:{folder}", pretrained_text=False)
    open_clip_encoder.tensors.save(folder / "open_clip_model.safetensors", network.state_dict())
    return folder


@pytest.fixture(scope="module")
def encoder(folder: Path) -> OpenCLIP:
    found = pair_encoder.load(folder)
    assert isinstance(found, OpenCLIP)
    return found


def picture(size: tuple[int, int] = (70, 50), mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


@pytest.mark.parametrize("size", [(70, 50), (20, 90), (SIDE, SIDE)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_pixels_are_those_of_open_clips_own_preprocessing(
    encoder: OpenCLIP, size: tuple[int, int], mode: str
) -> None:
    image = picture(size, mode)
    found = encoder.pixels([encoder.prepare(image)])[0]
    assert torch.allclose(found, encoder.transform(image), atol=1e-6)


def test_scores_are_those_of_open_clip_on_its_own_padding(folder: Path, encoder: OpenCLIP) -> None:
    network, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(CAPTIONS)
    assert tokens.shape == (len(CAPTIONS), 24)
    with torch.no_grad():
        texts = network.eval().encode_text(tokens, normalize=True)
        images = network.encode_image(transform(picture())[None], normalize=True)
        rows = encoder.padded([encoder.ids(caption) for caption in CAPTIONS])
        assert len(encoder.ids("a")) < 5, "a short caption is not padded to the whole context"
        found = encoder.image_features(encoder.pixels([encoder.prepare(picture())])) @ (
            encoder.text_features(rows).T
        )
    expected = images @ texts.T
    assert (found - expected).abs().max() < 1e-5
    assert expected.std() > 1e-3, "scores that are all alike would prove nothing"


def test_a_saved_model_needs_no_hub_and_is_saved_with_the_same_bytes(
    encoder: OpenCLIP, folder: Path, tmp_path: Path
) -> None:
    encoder.document["model_cfg"]["text_cfg"]["hf_model_name"] = "no-such/model-on-any-hub"
    encoder.save(tmp_path / "first")
    again = pair_encoder.load(tmp_path / "first", sha256=weights.digest(tmp_path / "first"))
    rows = encoder.padded([encoder.ids(caption) for caption in CAPTIONS])
    with torch.no_grad():
        assert torch.equal(again.text_features(rows), encoder.text_features(rows))
    again.save(tmp_path / "second")
    assert weights.digest(tmp_path / "first") == weights.digest(tmp_path / "second")


def test_a_folder_whose_weights_are_a_pickle_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"lacks open_clip_model\.safetensors"):
        pair_encoder.load(tmp_path)


def test_weights_that_do_not_fit_their_config_are_refused(encoder: OpenCLIP, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    config = tmp_path / "open_clip_config.json"
    config.write_text(config.read_text().replace('"width": 64', '"width": 32'))
    with pytest.raises(WeightsError, match="cannot build this model"):
        pair_encoder.load(tmp_path)
