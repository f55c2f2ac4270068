"""Published pickles become safetensors with the same names, types and values; a pickle with code in it is refused unopened."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, M2M100ForConditionalGeneration

from models import tensors
from models.architecture import ClipEncoder, LanguageModel, Visual, Weights
from models.factory import load_language_model, load_visual
from models.pickled import PICKLE_FILE, PICKLE_INDEX_FILE
from models.translator import Translator, convert
from models.weights import INDEX_FILE, WEIGHTS_FILE, WeightsError
from models.word_tokenizer import make_word_tokenizer
from pipelines.errors import BadInput
from pipelines.foundations.from_pickle import to_safetensors
from pipelines.lake import manifest
from tests.small_translator import short_sentence_translator

SHAPE = {
    "vocab_size": 60, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 2, "tie_word_embeddings": False,
}  # fmt: skip


def vicuna(folder: Path, *, shards: int = 2, tie: bool = False) -> LlamaForCausalLM:
    """A folder as lmsys/vicuna-7b-v1.5 has it: shards of half precision in pickles, and their index."""
    torch.manual_seed(2)
    model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, "tie_word_embeddings": tie})).half()
    folder.mkdir()
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.save_pretrained(folder)
    make_word_tokenizer(["red circle"] * 3, 60).save(os.fspath(folder / "tokenizer.json"))
    (folder / "modeling_own.py").write_text("raise SystemExit", encoding="utf-8")
    state = dict(model.state_dict())
    names = list(state)
    places = {}
    for number in range(shards):
        name = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        mine = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        torch.save({one: state[one] for one in mine}, folder / name)
        places |= dict.fromkeys(mine, name)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / PICKLE_INDEX_FILE).write_text(json.dumps(index), encoding="utf-8")
    return model


def test_shards_become_safetensors_of_the_same_names_types_and_values(tmp_path: Path) -> None:
    model = vicuna(tmp_path / "vicuna")
    made = to_safetensors(os.fspath(tmp_path / "vicuna"), tmp_path / "safe", most_bytes=5000)

    found = tensors.load(tmp_path / "safe")
    assert found.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert found[name].dtype == torch.float16 and torch.equal(found[name], value), name
    files = sorted((tmp_path / "safe").glob("*.safetensors"))
    assert len(files) == made["files"] > 2
    assert all(file.stat().st_size < 5000 + 3000 for file in files), "a file of the output is small"
    names = {file.name for file in (tmp_path / "safe").iterdir()}
    assert {INDEX_FILE, "config.json", "tokenizer.json"} <= names
    assert not any(name.endswith((".bin", ".py", ".bin.index.json")) for name in names), "no pickles, no code"
    ids = torch.tensor([[1, 5, 9]])
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "safe", dtype=torch.float32)
    torch.testing.assert_close(again(ids).logits, model.float()(ids).logits)


def test_a_recipes_language_model_is_brought_in_so_and_the_error_before_says_how(tmp_path: Path) -> None:
    model = vicuna(tmp_path / "vicuna")

    def config(folder: str) -> LanguageModel:
        return LanguageModel(
            architecture={"model_type": "llama", **SHAPE}, weights=Weights(source=str(tmp_path / folder))
        )

    with pytest.raises(WeightsError, match="as a pickle") as caught:
        load_language_model(config("vicuna"))
    assert f"python -m pipelines.foundations.from_pickle {tmp_path / 'vicuna'}" in caught.value.remedy

    to_safetensors(os.fspath(tmp_path / "vicuna"), tmp_path / "safe")
    loaded, _ = load_language_model(config("safe"))
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.float()), name

    state = tensors.load(tmp_path / "safe")
    del state["model.layers.1.mlp.up_proj.weight"]
    (tmp_path / "safe" / INDEX_FILE).unlink()
    tensors.save(tmp_path / "safe" / WEIGHTS_FILE, state)
    with pytest.raises(WeightsError, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight"):
        load_language_model(config("safe"))


def test_a_tensor_under_two_names_is_written_once_where_transformers_ties_them_and_twice_elsewhere(
    tmp_path: Path,
) -> None:
    model = vicuna(tmp_path / "tied", shards=1, tie=True)
    to_safetensors(os.fspath(tmp_path / "tied"), tmp_path / "safe")
    assert "lm_head.weight" not in tensors.load(tmp_path / "safe")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "safe")
    assert torch.equal(again.lm_head.weight, model.model.embed_tokens.weight)

    shared = torch.arange(12.0).view(3, 4)
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "nobody_knows"}', encoding="utf-8")
    torch.save({"a": shared, "b": shared, "part": shared[1:], "turned": shared.T}, other / PICKLE_FILE)
    to_safetensors(os.fspath(other), tmp_path / "copied")
    found = tensors.load_file(tmp_path / "copied" / WEIGHTS_FILE)
    expected: dict[str, Tensor] = {"a": shared, "b": shared, "part": shared[1:], "turned": shared.T}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_file_of_before_torch_1_6_is_read_too(tmp_path: Path) -> None:
    model = vicuna(tmp_path / "old", shards=1)
    (tmp_path / "old" / PICKLE_INDEX_FILE).unlink()
    torch.save(model.state_dict(), tmp_path / "old" / PICKLE_FILE, _use_new_zipfile_serialization=False)
    made = to_safetensors(os.fspath(tmp_path / "old"), tmp_path / "safe")
    assert made["files"] == 1
    with safe_open(tmp_path / "safe" / WEIGHTS_FILE, "pt") as file:
        assert set(file.keys()) == set(model.state_dict())


@pytest.fixture
def m2m(tmp_path: Path) -> Path:
    """A folder as facebook/m2m100_418M has it: tensors in one pickle, tied ones once under each name."""
    folder = tmp_path / "published"
    shutil.copytree(manifest.folder(short_sentence_translator()) / "hf", folder)
    network = M2M100ForConditionalGeneration.from_pretrained(folder)
    torch.save(network.state_dict(), folder / PICKLE_FILE)
    (folder / "model.safetensors").unlink()
    return folder


def test_m2m_100_translates_as_before(m2m: Path, tmp_path: Path) -> None:
    to_safetensors(os.fspath(m2m), tmp_path / "safe")
    convert(tmp_path / "safe", tmp_path / "converted", quantization="float32")
    before = Translator(manifest.folder(short_sentence_translator()), threads=1)
    after = Translator(tmp_path / "converted", threads=1)
    texts = ["red", "What colour are the circles?", "Describe the picture."]
    assert after.translate(texts, "en", "zh") == before.translate(texts, "en", "zh")


def test_weights_of_another_model_do_not_become_a_translator(m2m: Path, tmp_path: Path) -> None:
    torch.save({"unknown.weight": torch.zeros(2)}, m2m / PICKLE_FILE)
    to_safetensors(os.fspath(m2m), tmp_path / "safe")
    with pytest.raises(WeightsError, match=r"the weights lack .* \(50 in all\)"):
        convert(tmp_path / "safe", tmp_path / "converted")


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/opened-a-hostile-pickle",)


def test_a_pickle_that_holds_code_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = Path("/tmp/opened-a-hostile-pickle")
    mark.unlink(missing_ok=True)
    vicuna(tmp_path / "vicuna")
    shard = tmp_path / "vicuna" / "pytorch_model-00002-of-00002.bin"
    torch.save({"model.norm.weight": Hostile()}, shard)
    with pytest.raises(BadInput, match="can be read safely") as caught:
        to_safetensors(os.fspath(tmp_path / "vicuna"), tmp_path / "safe")
    assert not mark.exists() and caught.value.where == str(shard)
    assert not (tmp_path / "safe").exists(), "nothing half-made has the name"


def test_a_source_that_is_incomplete_is_refused_by_the_name_of_its_file(tmp_path: Path) -> None:
    vicuna(tmp_path / "vicuna")
    shard = tmp_path / "vicuna" / "pytorch_model-00002-of-00002.bin"
    state = torch.load(shard)
    torch.save({name: value for name, value in state.items() if name != "lm_head.weight"}, shard)
    with pytest.raises(BadInput, match=r"lacks lm_head\.weight") as caught:
        to_safetensors(os.fspath(tmp_path / "vicuna"), tmp_path / "safe")
    assert caught.value.where == str(shard)
    shard.unlink()
    with pytest.raises(BadInput, match="lacks pytorch_model-00002-of-00002"):
        to_safetensors(os.fspath(tmp_path / "vicuna"), tmp_path / "safe")
    with pytest.raises(BadInput, match=r"has no pytorch_model\.bin and no pytorch_model\.bin\.index\.json"):
        to_safetensors(os.fspath(tmp_path), tmp_path / "safe")


def test_a_source_that_a_hub_gave_without_safetensors_says_how_they_are_made(tmp_path: Path) -> None:
    """Of a hub, pickles are not fetched: the folder has the configuration alone."""
    LlamaConfig(**SHAPE).save_pretrained(tmp_path)
    config = LanguageModel(
        architecture={"model_type": "llama", **SHAPE}, weights=Weights(source=str(tmp_path))
    )
    with pytest.raises(WeightsError, match="there are no safetensors in it") as caught:
        load_language_model(config)
    assert "python -m pipelines.foundations.from_pickle OWNER/NAME FOLDER" in caught.value.remedy
    encoder = ClipEncoder(image_size=28, width=16, layers=1, heads=2, mlp_width=8)
    visual = Visual(encoder=encoder, weights=Weights(source=str(tmp_path)))
    with pytest.raises(WeightsError, match="there are no safetensors in it"):
        load_visual(visual, 16)
    torch.save({}, tmp_path / PICKLE_FILE)
    with pytest.raises(WeightsError, match="as a pickle"):
        load_visual(visual, 16)


def test_the_command_shows_its_progress_and_refuses_to_write_over_anything(tmp_path: Path) -> None:
    vicuna(tmp_path / "vicuna")
    command = [
        sys.executable, "-m", "pipelines.foundations.from_pickle", str(tmp_path / "vicuna"), str(tmp_path / "safe"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert f"name {tmp_path / 'safe'}" in done.stdout and "to safetensors: 100%" in done.stderr
    again = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert again.returncode == 42 and "there is something here already" in again.stderr
