"""The chat of a language model's folder: its tokenizer and template, read without its weights.

Imports no torch for a tokenizer of transformers: a plan of the data, which needs no more, starts in a second.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tokenizers import Tokenizer

from models.chat_template import Chat, Name, TemplateChat
from models.weights import TOKENIZER_FILE, VOCABULARY_FILE, WeightsError, read_json, require

if TYPE_CHECKING:
    from models.cpm_bee_chat import CpmBeeTokenizer

CHAT_FILE = "chat.json"
LANGUAGE_FOLDER = "language_model"
"""Where a whole model has it."""

Vocabulary: TypeAlias = "Tokenizer | CpmBeeTokenizer"


def make_chat(tokenizer: Vocabulary, template: Name, system: str, image_tokens: int) -> Chat:
    """The chat of a tokenizer and a template.

    Raises:
        WeightsError: the tokenizer lacks a mark of the template.
    """
    if not isinstance(tokenizer, Tokenizer):
        from models.cpm_bee_chat import CpmBeeChat

        return CpmBeeChat(tokenizer, image_tokens=image_tokens)
    try:
        return TemplateChat(tokenizer, template, system=system, image_tokens=image_tokens)
    except KeyError as error:
        raise WeightsError(
            str(error.args[0]),
            where=TOKENIZER_FILE,
            remedy="choose the template that the model was trained with",
        ) from None


def read_chat(folder: Path, image_tokens: int) -> Chat:
    """The chat of a language model's folder, or of the whole model that it is part of, without its weights.

    Raises:
        WeightsError: its tokenizer is missing or lacks a mark of its template.
    """
    inner = folder / LANGUAGE_FOLDER
    if inner.is_dir():
        folder = inner
    chat = read_json(folder / CHAT_FILE) if (folder / CHAT_FILE).is_file() else {}
    if (folder / VOCABULARY_FILE).is_file() and not (folder / TOKENIZER_FILE).is_file():
        from models.cpm_bee_chat import CpmBeeTokenizer

        return make_chat(CpmBeeTokenizer.from_file(folder / VOCABULARY_FILE), "cpm_bee", "", image_tokens)
    require(folder, [TOKENIZER_FILE])
    tokenizer = Tokenizer.from_file(os.fspath(folder / TOKENIZER_FILE))
    return make_chat(tokenizer, chat.get("template", "chatml"), chat.get("system", ""), image_tokens)
