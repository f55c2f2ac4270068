"""The language model in a folder: weights, tokenizer and chat template together, of transformers or CPM-Bee."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoModelForCausalLM

from models import lora, tensors
from models.chat_folder import CHAT_FILE, Vocabulary
from models.chat_template import Name, TemplateChat
from models.cpm_bee import CpmBee, CpmBeeConfig
from models.cpm_bee_chat import CpmBeeTokenizer
from models.language_model import attention_implementation, save_language_model
from models.weights import TOKENIZER_FILE, VOCABULARY_FILE, WEIGHTS_FILE, read_json, require, require_weights

CONFIG_FILE = "config.json"
ADAPTER_FOLDER = "adapter"


class Backbone(NamedTuple):
    """A language model with what it reads and writes by."""

    model: Any
    """A causal model of transformers, or `CpmBee`."""
    tokenizer: Vocabulary
    template: Name
    system: str


def save(backbone: Backbone, folder: Path, *, image_tokens: int = 0) -> None:
    """Write a language model's folder; `image_tokens`: visual tokens per image of the model that it is part of.

    Of a model with adapters, `adapter/` holds these as peft reads them, and the folder itself the model with
    them merged in, which any loader reads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer, template, system = backbone
    if isinstance(model, CpmBee) and isinstance(tokenizer, CpmBeeTokenizer):
        tensors.save(folder / WEIGHTS_FILE, model.state_dict())
        document = {"model_type": model.config.model_type, **asdict(model.config)}
        (folder / CONFIG_FILE).write_text(json.dumps(document, indent=1) + "\n")
        tokenizer.save(folder / VOCABULARY_FILE)
    elif isinstance(tokenizer, Tokenizer):
        own = TemplateChat(tokenizer, template, system=system, image_tokens=image_tokens)
        if (config := lora.config_of(model)) is not None:
            lora.save_adapters(model, config, folder / ADAPTER_FOLDER)
            save_language_model(model, own, folder, state=lora.merged_state(model))
        else:
            save_language_model(model, own, folder)
    chat = {"template": template, "system": system}
    (folder / CHAT_FILE).write_text(json.dumps(chat, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def load(folder: Path) -> Backbone:
    """The language model of a folder, in float32; a folder without a chat template speaks ChatML.

    Raises:
        WeightsError: a file is missing or does not fit, or the weights are not safetensors.
    """
    require(folder, [CONFIG_FILE])
    document = read_json(folder / CONFIG_FILE)
    chat = read_json(folder / CHAT_FILE) if (folder / CHAT_FILE).is_file() else {}
    template: Name = chat.get("template", "chatml")
    if document.get("model_type") == CpmBeeConfig.model_type:
        document.pop("model_type")
        # On the meta device: ten billion random weights take minutes, and as much memory again.
        with torch.device("meta"):
            model: nn.Module = CpmBee(CpmBeeConfig(**document))
        tensors.load_into(model, tensors.load(folder), where=folder, assign=True)
        model.float()
        return Backbone(model, CpmBeeTokenizer.from_file(folder / VOCABULARY_FILE), "cpm_bee", "")
    require(folder, [TOKENIZER_FILE])
    require_weights(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32,
        attn_implementation=attention_implementation(),
    )  # fmt: skip
    tokenizer = Tokenizer.from_file(os.fspath(folder / TOKENIZER_FILE))
    return Backbone(model, tokenizer, template, chat.get("system", ""))
