"""Bringing in: fetched or found, checked against the architecture, written as training reads it."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from tokenizers import Tokenizer

from models import backbone, factory
from models.architecture import LanguageModel
from models.backbone import Backbone
from models.chat_folder import LANGUAGE_FOLDER, Vocabulary, make_chat
from models.cpm_bee import CpmBee
from models.cpm_bee_chat import CpmBeeTokenizer
from models.generation import write_generation
from models.visual import save_visual_module
from models.weights import WeightsError
from pipelines.errors import BadInput
from pipelines.foundations.published.spec import PublishedSpec
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work


def run(spec: PublishedSpec, work: Work, progress: Progress) -> Outcome:
    """Write the part's folder; the metrics count its parameters."""
    # The small half first: what is wrong with it is known before gigabytes are written.
    halves = ("visual", "language_model") if spec.part == "model" else (spec.part,)
    progress.start(f"{spec.part} of the system", len(halves), unit="part")
    parameters = 0
    for half in halves:
        try:
            if half == "language_model":
                folder = work.out / LANGUAGE_FOLDER if spec.part == "model" else work.out
                parameters += _language_model(spec, folder)
            else:
                parameters += _visual(spec, work.out)
        except WeightsError as error:
            raise BadInput(
                error.message,
                where=f"{error.where}, named by architecture.{half}.weights",
                remedy=error.remedy,
            ) from error
        progress.advance()
    if spec.part == "model" and spec.generation is not None:
        write_generation(work.out, spec.generation.model_dump())
    return Outcome(metrics={"parameters": parameters})


def _language_model(spec: PublishedSpec, folder: Path) -> int:
    """Write the language model; its parameters, counted."""
    made = language_model(spec.architecture.language_model, spec.tokenizer, seed=spec.seed)
    make_chat(made.tokenizer, made.template, made.system, 0)
    backbone.save(made, folder)
    return sum(parameter.numel() for parameter in made.model.parameters())


def _visual(spec: PublishedSpec, folder: Path) -> int:
    width = factory.declared_width(spec.architecture.language_model)
    module = factory.load_visual(spec.architecture.visual, width, seed=spec.seed)
    save_visual_module(module, folder)
    return sum(parameter.numel() for parameter in module.parameters())


def language_model(config: LanguageModel, tokenizer: Path | None, *, seed: int) -> Backbone:
    """The language model of a configuration: with its published weights, or random ones and the given tokenizer.

    Raises:
        BadInput: it has no published weights and no tokenizer was given.
        WeightsError: the weights are missing or do not fit.
    """
    if config.weights is not None:
        model, words = factory.load_language_model(config)
        return Backbone(model, words, config.template, config.system)
    if tokenizer is None:
        raise BadInput(
            "a language model without published weights needs a tokenizer",
            where="tokenizer", remedy="give its tokenizer.json (of CPM-Bee: vocab.txt)",
        )  # fmt: skip
    torch.manual_seed(seed)
    made = factory.language_model(config)
    vocabulary: Vocabulary = (
        CpmBeeTokenizer.from_file(tokenizer)
        if isinstance(made, CpmBee)
        else Tokenizer.from_file(os.fspath(tokenizer))
    )
    return Backbone(made, vocabulary, config.template, config.system)
