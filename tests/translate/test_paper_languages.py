"""M2M-100 through CTranslate2 writes what transformers writes, into every language of the papers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import M2M100ForConditionalGeneration, M2M100Tokenizer

from models.translator import Translator, convert
from pipelines.lake import manifest
from pipelines.translate.languages import PAPER_LANGUAGES, name_of
from tests.small_translator import short_sentence_translator

TEXTS = ["red", "What colour are the circles?", "Describe the picture."]
LENGTH = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose language tokens all matter: those that were never trained are drawn anew."""
    source = manifest.folder(short_sentence_translator()) / "hf"
    network = M2M100ForConditionalGeneration.from_pretrained(source)
    tokenizer = M2M100Tokenizer.from_pretrained(source)
    torch.manual_seed(0)
    with torch.no_grad():
        for language in PAPER_LANGUAGES:
            network.model.shared.weight[tokenizer.get_lang_id(language)].normal_(std=network.config.init_std)
    copy = tmp_path_factory.mktemp("m2m100")
    network.save_pretrained(copy)
    for path in source.iterdir():
        if not (copy / path.name).exists():
            (copy / path.name).write_bytes(path.read_bytes())
    convert(copy, copy / "converted", quantization="float32")
    return copy


@pytest.mark.parametrize("target", PAPER_LANGUAGES)
def test_greedy_output_is_that_of_generate(folder: Path, target: str) -> None:
    translator = Translator(folder / "converted", threads=1, max_output_tokens=LENGTH)
    network = M2M100ForConditionalGeneration.from_pretrained(folder)
    tokenizer = M2M100Tokenizer.from_pretrained(folder, src_lang="en")
    outputs = translator.translate(TEXTS, "en", target)
    for text, output in zip(TEXTS, outputs, strict=True):
        with torch.no_grad():
            ids = network.generate(
                **tokenizer(text, return_tensors="pt"), forced_bos_token_id=tokenizer.get_lang_id(target),
                num_beams=1, max_new_tokens=LENGTH, do_sample=False,
            )  # fmt: skip
        marked = tokenizer.decode(ids[0], skip_special_tokens=True)
        expected = marked.removeprefix(f"__{target}__").strip()
        if output.finished:
            assert output.text == expected
        else:
            # Cut off at a length that the two count differently, by a token.
            assert expected[:10] == output.text[:10]


def test_the_languages_of_the_papers_have_tokens_and_names(folder: Path) -> None:
    translator = Translator(folder / "converted", threads=1)
    assert set(PAPER_LANGUAGES) <= set(translator.languages)
    assert all(name_of(language) != language for language in PAPER_LANGUAGES)
