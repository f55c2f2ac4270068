"""Published weights in a pickle become safetensors that translate the same; a pickle with code in it is refused unopened."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import M2M100ForConditionalGeneration

from models.translator import Translator, convert
from pipelines.errors import BadInput
from pipelines.foundations.translator.from_pickle import PICKLE_FILE, to_safetensors
from pipelines.lake import manifest
from tests.small_translator import short_sentence_translator


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as the hub has it: tensors in a pickle, tied ones once under each name."""
    folder = tmp_path / "published"
    shutil.copytree(manifest.folder(short_sentence_translator()) / "hf", folder)
    network = M2M100ForConditionalGeneration.from_pretrained(folder)
    torch.save(network.state_dict(), folder / PICKLE_FILE)
    (folder / "model.safetensors").unlink()
    return folder


def test_the_weights_translate_as_before(published: Path, tmp_path: Path) -> None:
    to_safetensors(published, tmp_path / "safe")
    assert not (tmp_path / "safe" / PICKLE_FILE).exists()
    convert(tmp_path / "safe", tmp_path / "converted", quantization="float32")
    before = Translator(manifest.folder(short_sentence_translator()), threads=1)
    after = Translator(tmp_path / "converted", threads=1)
    texts = ["red", "What colour are the circles?", "Describe the picture."]
    assert after.translate(texts, "en", "zh") == before.translate(texts, "en", "zh")


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/opened-a-hostile-pickle",)


def test_a_pickle_that_holds_code_is_refused_and_not_run(published: Path, tmp_path: Path) -> None:
    mark = Path("/tmp/opened-a-hostile-pickle")
    mark.unlink(missing_ok=True)
    torch.save({"model.shared.weight": Hostile()}, published / PICKLE_FILE)
    with pytest.raises(BadInput, match="cannot be taken over"):
        to_safetensors(published, tmp_path / "safe")
    assert not mark.exists()


def test_weights_of_another_model_and_a_folder_without_any_are_refused(
    published: Path, tmp_path: Path
) -> None:
    torch.save({"unknown.weight": torch.zeros(2)}, published / PICKLE_FILE)
    with pytest.raises(BadInput, match="not the M2M-100"):
        to_safetensors(published, tmp_path / "safe")
    (published / PICKLE_FILE).unlink()
    with pytest.raises(BadInput, match=r"there is no pytorch_model\.bin"):
        to_safetensors(published, tmp_path / "safe")
