"""From an `Architecture` to a model: on the meta device for a dry run, small and random for a tiny twin, or with published weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from models import published, weights
from models.architecture import Architecture, LanguageModel, Visual, Weights
from models.chat_folder import Vocabulary
from models.cpm_bee import CpmBee, CpmBeeConfig
from models.cpm_bee_chat import CpmBeeTokenizer
from models.language_model import attention_implementation
from models.lora import add_adapters
from models.visual import VisualModule
from models.weights import TOKENIZER_FILE, VOCABULARY_FILE, WeightsError

CPM_BEE = "cpm_bee"
UNSUPPORTED = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Settings of architectures that change the logits after the head, which the trainer applies on its own."""


def language_model(config: LanguageModel) -> nn.Module:
    """The language model of a configuration with random weights, on the current default device.

    Raises:
        WeightsError: transformers does not know the architecture, or it needs code of its own.
    """
    document = dict(config.architecture)
    if document.get("model_type") == CPM_BEE:
        document.pop("model_type")
        return CpmBee(CpmBeeConfig(**document))
    try:
        shape = AutoConfig.for_model(**document)
        _supported(shape)
        made: nn.Module = AutoModelForCausalLM.from_config(
            shape, attn_implementation=attention_implementation(), trust_remote_code=False
        )
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"transformers cannot build {document.get('model_type')!r}: {error}",
            where="language_model.architecture",
            remedy="give the config.json of an architecture that transformers has itself",
        ) from error
    return made


def _supported(shape: Any) -> None:
    for setting in UNSUPPORTED:
        if getattr(shape, setting, None) not in (None, 1, 1.0):
            raise ValueError(f"it changes its logits by {setting}, which training here does not do")


class Network(nn.Module):
    """The parts of a model under the names that a recipe trains them by; no tokenizer, so it cannot be run."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.language_model = language_model(architecture.language_model)
        self.visual = VisualModule(architecture.visual, width_of(self.language_model))
        if architecture.language_model.lora is not None:
            add_adapters(self.language_model, architecture.language_model.lora)


def skeleton(architecture: Architecture) -> Network:
    """The whole network at its full size on the meta device: shapes and no memory."""
    with torch.device("meta"):
        return Network(architecture)


def width_of(model: nn.Module) -> int:
    """Width of a language model's word embeddings."""
    found: Any = model.get_input_embeddings()  # type: ignore[operator]
    return int(found.weight.shape[1])


def load_visual(config: Visual, language_width: int, *, seed: int = 0) -> VisualModule:
    """The visual module: its encoder with the published weights that the configuration names, the rest random.

    Raises:
        WeightsError: the weights are missing, of another digest, or do not fit.
    """
    torch.manual_seed(seed)
    module = VisualModule(config, language_width)
    if config.weights is None:
        return module
    where = published.locate(config.weights)
    try:
        state = published.visual_state(config, published.read(where), config.weights.layout)
    except WeightsError as error:
        raise WeightsError(error.message, where=error.where or where, remedy=error.remedy) from error
    published.put(module, state, where=where, parts=published.VISUAL_PARTS[config.weights.layout])
    return module


def declared_width(config: LanguageModel) -> int:
    """Width of the language model that a configuration describes, without building it."""
    with torch.device("meta"):
        return width_of(language_model(config.model_copy(update={"lora": None})))


def load_language_model(config: LanguageModel) -> tuple[Any, Vocabulary]:
    """A language model and its tokenizer, from the source that the configuration names.

    No code of the source is run, and of pickles only plain tensors are read, and these of CPM-Bee and VisCPM alone.

    Raises:
        WeightsError: there is no source, it is incomplete, of another digest, or of another architecture.
    """
    if config.weights is None:
        raise WeightsError("the language model has no weights", where="language_model.weights")
    if config.weights.layout in ("cpm_bee", "viscpm"):
        return _load_cpm_bee(config, config.weights)
    if config.weights.layout != "transformers":
        raise WeightsError(
            f"a checkpoint of {config.weights.layout} has no language model", where=config.weights.source,
            remedy="correct `language_model.weights.layout`",
        )  # fmt: skip
    folder = weights.locate(config.weights.source, sha256=config.weights.sha256)
    found = weights.read_json(folder / "config.json").get("model_type")
    if found != config.architecture["model_type"]:
        raise WeightsError(
            f"this config describes {found!r}, not {config.architecture['model_type']!r}",
            where=folder / "config.json", remedy="correct the recipe's source or architecture",
        )  # fmt: skip
    weights.require_weights(folder)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False,
            dtype=torch.float32, attn_implementation=attention_implementation(), output_loading_info=True,
        )  # fmt: skip
        model: PreTrainedModel = loaded[0]
        _supported(model.config)
    except (OSError, ValueError) as error:
        raise WeightsError(str(error).splitlines()[0], where=folder) from error
    # transformers begins these anew, and goes on.
    if lacking := sorted(loaded[1]["missing_keys"]):
        raise WeightsError(
            f"the weights lack {lacking[0]} ({len(lacking)} in all), which the config.json beside them describes",
            where=folder, remedy="give the weights and the config.json of one model",
        )  # fmt: skip
    declared = declared_width(config)
    if width_of(model) != declared:
        raise WeightsError(
            f"the weights are {width_of(model)} wide, the recipe's architecture {declared}", where=folder,
            remedy="correct the recipe's source or architecture",
        )  # fmt: skip
    return model, tokenizer_of(folder)


def _load_cpm_bee(config: LanguageModel, source: Weights) -> tuple[CpmBee, CpmBeeTokenizer]:
    if config.architecture["model_type"] != CPM_BEE:
        raise WeightsError(
            f"a checkpoint of {source.layout} has a CPM-Bee, not a {config.architecture['model_type']!r}",
            where=source.source, remedy="correct the recipe's source or architecture",
        )  # fmt: skip
    where = published.locate(source)
    # Before gigabytes are read: a vocabulary of another size would be found only when somebody asks.
    tokenizer = CpmBeeTokenizer.from_file(_vocabulary(config, where))
    shape = {key: value for key, value in config.architecture.items() if key != "model_type"}
    with torch.device("meta"):
        model = CpmBee(CpmBeeConfig(**shape))
    if len(tokenizer.pieces) != model.config.vocab_size:
        raise WeightsError(
            f"this vocabulary has {len(tokenizer.pieces)} pieces, the recipe's architecture {model.config.vocab_size}",
            where=_vocabulary(config, where), remedy="give the vocabulary that the weights were trained with",
        )  # fmt: skip
    model.to_empty(device="cpu")
    state = published.read(where)
    taken = published.viscpm_language_model if source.layout == "viscpm" else published.cpm_bee
    try:
        found = taken(state)
    except WeightsError as error:
        raise WeightsError(error.message, where=where, remedy=error.remedy) from error
    published.put(model, found, where=where)
    return model, tokenizer


def _vocabulary(config: LanguageModel, weights_at: Path) -> Path:
    """CPM-Bee's vocabulary: what the recipe names, or what lies beside the weights.

    Raises:
        WeightsError: there is none.
    """
    if config.vocabulary is None:
        beside = weights_at if weights_at.is_dir() else weights_at.parent
        if not (beside / VOCABULARY_FILE).is_file():
            raise WeightsError(
                f"there is no {VOCABULARY_FILE} beside the weights", where=beside,
                remedy="name it as `language_model.vocabulary`: a file, or a hub id such as openbmb/cpm-bee-10b",
            )  # fmt: skip
        return beside / VOCABULARY_FILE
    found = weights.locate(config.vocabulary, patterns=[VOCABULARY_FILE])
    return found if found.is_file() else found / VOCABULARY_FILE


def tokenizer_of(folder: Path) -> Tokenizer:
    """The tokenizer of a transformers folder; one in sentencepiece's format (Vicuna) is converted.

    Raises:
        WeightsError: there is none that can be read.
    """
    if (folder / TOKENIZER_FILE).is_file():
        return Tokenizer.from_file(os.fspath(folder / TOKENIZER_FILE))
    try:
        made: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return Tokenizer.from_str(made.backend_tokenizer.to_str())
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"this folder has no tokenizer that can be read: {error}", where=folder) from error
