"""A saved model's tokenizer, read by AutoTokenizer: its marks, and `apply_chat_template`, are those that training used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from models import backbone
from models.architecture import QueryTransformer, Visual
from models.backbone import Backbone
from models.chat import IMAGE
from models.chat_folder import LANGUAGE_FOLDER
from models.chat_template import IMAGE_MARKER, IMAGE_PLACE, Name, TemplateChat, Turn
from models.vision_language import VisionLanguageModel, load
from models.visual import VisualModule
from models.word_tokenizer import make_word_tokenizer
from pipelines.systems.recipe import read_system
from tests.models.test_chat_template import CONVERSATIONS, MARKS, TEMPLATES

RECIPES = Path(__file__).parents[2] / "recipes"
TEXTS = [text for turns in CONVERSATIONS.values() for turn in turns for text in turn] * 3
NO_IMAGE_TOKEN = [mark for mark in MARKS if mark != IMAGE]


def qwens() -> Tokenizer:
    """Bytes and merges, split as Qwen and LLaMA 3 do; no token for images."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in NO_IMAGE_TOKEN])
    return tokenizer


def llamas() -> Tokenizer:
    """Sentencepiece's spaces, at the beginning of a text only, as transformers makes Vicuna's: no mark of ChatML in it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    own = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=[*own, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, "USER: ASSISTANT: A chat between a curious user"], trainer)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [one for one in document["added_tokens"] if one["content"] in own]
    return Tokenizer.from_str(json.dumps(document))


def words() -> Tokenizer:
    """The quickstart's, which has a token for images."""
    tokenizer = make_word_tokenizer(TEXTS, 400)
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in ("<s>", "</s>", *MARKS[6:])])
    return tokenizer


KINDS = {"qwen": qwens, "llama": llamas, "words": words}
CASES = [
    (kind, template)
    for kind in KINDS
    for template in TEMPLATES
    if kind != "llama" or template in ("vicuna", "plain")
]


def saved(kind: str, template: Name, folder: Path, *, system: str = "", tokens: int = 3) -> TemplateChat:
    """A whole model's folder, and the chat that training would encode by."""
    tokenizer = KINDS[kind]()
    shape: dict[str, Any] = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "vocab_size": tokenizer.get_vocab_size(),
    }  # fmt: skip
    language = (
        LlamaForCausalLM(LlamaConfig(**shape)) if kind == "llama" else Qwen2ForCausalLM(Qwen2Config(**shape))
    )
    encoder = QueryTransformer(image_size=8, patch_size=4, queries=tokens, width=8, layers=1, heads=2)
    model = VisionLanguageModel(
        VisualModule(Visual(encoder=encoder), 16), language, tokenizer, template=template, system=system
    )
    model.save(folder)
    assert isinstance(model.chat, TemplateChat)
    return model.chat


def read(kind: str, folder: Path) -> Any:
    """The tokenizer as others read it. AutoTokenizer takes any folder of the type qwen2 for Qwen's own words (its list of
    hub configurations that are wrong), so the quickstart's is read by the class that its configuration names."""
    if kind == "words":
        return PreTrainedTokenizerFast.from_pretrained(folder / LANGUAGE_FOLDER)
    return AutoTokenizer.from_pretrained(folder / LANGUAGE_FOLDER)


def messages(turns: list[Turn], *, listed: bool) -> list[dict[str, Any]]:
    """The turns as transformers takes them: markers in the text, or images as items of their own before it."""
    found: list[dict[str, Any]] = []
    for question, answer in turns:
        content: Any = question
        if listed:
            words = question.replace(IMAGE_MARKER, "").lstrip("\n")
            images = [{"type": "image"}] * question.count(IMAGE_MARKER)
            content = [*images, {"type": "text", "text": words}]
        found.append({"role": "user", "content": content})
        if answer is not None:
            found.append({"role": "assistant", "content": answer})
    return found


def applied(tokenizer: Any, said: list[dict[str, Any]], chat: TemplateChat, *, prompt: bool) -> list[int]:
    """The ids of `apply_chat_template`; a rendered `<image>` is parted at, as LLaVA does it."""
    if chat.image_id != IMAGE_PLACE:
        return list(tokenizer.apply_chat_template(said, add_generation_prompt=prompt)["input_ids"])
    text = tokenizer.apply_chat_template(said, add_generation_prompt=prompt, tokenize=False)
    ids: list[int] = []
    for number, part in enumerate(text.split(IMAGE_MARKER)):
        ids += [IMAGE_PLACE] * (chat.image_tokens if number else 0)
        ids += tokenizer(part, add_special_tokens=False)["input_ids"]
    return ids


@pytest.mark.parametrize("listed", [False, True], ids=["markers", "items"])
@pytest.mark.parametrize(("kind", "template"), CASES)
def test_apply_chat_template_gives_the_ids_of_training(
    kind: str, template: Name, listed: bool, tmp_path: Path
) -> None:
    system = TEMPLATES[template]
    chat = saved(kind, template, tmp_path, system=system)
    tokenizer = read(kind, tmp_path)

    for language in ("en", "zh", "ar"):
        first, second = CONVERSATIONS[language]
        with_image: list[Turn] = [(f"{IMAGE_MARKER}\n{first[0]}", first[1]), second]
        of_two: list[Turn] = [
            (f"{IMAGE_MARKER}{IMAGE_MARKER}\n{first[0]}", first[1]),
            (f"{IMAGE_MARKER}\n{second[0]}", "Ja."),
        ]
        of_none: list[Turn] = [first, second, first]
        for turns, images in ((with_image, 1), (of_two, 3), (of_none, 0)):
            said = messages(turns, listed=listed)
            assert applied(tokenizer, said, chat, prompt=False) == chat.encode(turns, images=images).ids
            *earlier, (question, _) = turns
            asked: list[Turn] = [*earlier, (question, None)]
            said = messages(asked, listed=listed)
            assert applied(tokenizer, said, chat, prompt=True) == chat.encode(asked, images=images).ids
    if not listed:
        between: list[Turn] = [(f"Is {IMAGE_MARKER} larger than {IMAGE_MARKER}?", "No.")]
        ids = applied(tokenizer, messages(between, listed=False), chat, prompt=False)
        assert ids == chat.encode(between, images=2).ids


@pytest.mark.parametrize(("kind", "template"), CASES)
def test_the_marks_are_those_that_the_template_uses(kind: str, template: Name, tmp_path: Path) -> None:
    chat = saved(kind, template, tmp_path, system=TEMPLATES[template])
    tokenizer = read(kind, tmp_path)

    ids = chat.encode([("What?", "This.")]).ids
    ends = {"chatml": "<|im_end|>", "vicuna": "</s>", "llama3": "<|eot_id|>"}
    begins = {"vicuna": "<s>", "llama3": "<|begin_of_text|>"}
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (chat.end_id, chat.pad_id)
    assert tokenizer.eos_token_id in ids[-2:]
    assert tokenizer.eos_token == ends.get(template, tokenizer.eos_token)
    assert tokenizer.bos_token == begins.get(template)
    assert tokenizer.bos_token is None or tokenizer.bos_token_id == ids[0]
    # The pad that fills rows up ends no answer where the tokenizer has another mark for it.
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True).strip().endswith("This.")


def test_a_system_prompt_in_the_messages_counts_instead_of_the_models_own(tmp_path: Path) -> None:
    chat = saved("qwen", "chatml", tmp_path, system="You are a helpful assistant.")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / LANGUAGE_FOLDER)
    own = 'Say "yes" \\ or\n„nein“.'
    said = [{"role": "system", "content": own}, {"role": "user", "content": "Red?"}]

    other = TemplateChat(chat.tokenizer, "chatml", system=own)
    expected = other.encode([("Red?", None)]).ids
    assert applied(tokenizer, said, chat, prompt=True) == expected
    # The same as the model's own: quotes and line breaks reach the template whole.
    backbone.save(Backbone(Qwen2ForCausalLM(Qwen2Config(vocab_size=600, hidden_size=16, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)), chat.tokenizer, "chatml", own), tmp_path / "own")  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "own")
    assert applied(tokenizer, said[1:], chat, prompt=True) == expected


def test_messages_that_no_training_had_are_refused(tmp_path: Path) -> None:
    saved("qwen", "chatml", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / LANGUAGE_FOLDER)
    for said in (
        [{"role": "assistant", "content": "Hello"}],
        [{"role": "user", "content": "Hello"}, {"role": "user", "content": "Hello"}],
        [{"role": "user", "content": [{"type": "video"}]}],
    ):
        with pytest.raises(TemplateError):
            tokenizer.apply_chat_template(said, tokenize=False)


def test_what_is_saved_is_read_again_and_encodes_the_same(tmp_path: Path) -> None:
    chat = saved("llama", "vicuna", tmp_path)
    again = load(tmp_path).chat
    turns: list[Turn] = [(f"{IMAGE_MARKER}\nWhat is on the table?", "A red cup."), ("How many?", None)]
    assert again.encode(turns, images=1) == chat.encode(turns, images=1)


def test_every_template_of_a_shipped_recipe_is_among_these() -> None:
    recipes = sorted(
        {*RECIPES.glob("*.yaml"), *RECIPES.glob("ablations/*.yaml")} - {RECIPES / "quickstart.yaml"}
    )
    used = {read_system(path).architecture.language_model.template for path in recipes}
    assert used - {"cpm_bee"} <= set(TEMPLATES)
