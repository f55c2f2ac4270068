"""The translator stage: train or take weights, convert, and score what will really translate."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from transformers import M2M100ForConditionalGeneration
from transformers.utils.logging import disable_progress_bar

from models.translator import convert
from models.weights import WeightsError, locate
from pipelines.errors import BadInput
from pipelines.foundations.translator import training, vocabulary
from pipelines.foundations.translator.bleu import tokenizer_for
from pipelines.foundations.translator.spec import TranslatorParameters, TranslatorSpec
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work
from pipelines.translate.guarded import TranslatesTexts
from pipelines.translate.spec import SERVER_FILE, Decoding
from pipelines.translate.translators import open_translator

HUGGING_FACE_FOLDER = "hf"
"""Below the table's folder: the same weights as transformers reads them."""
SAMPLES = 10


def run(spec: TranslatorSpec, work: Work, progress: Progress) -> Outcome:
    """Write `ct2/`, `sentencepiece.bpe.model`, `vocab.json` and, if trained here, `hf/`; `server.json` for a server."""
    torch.set_num_threads(spec.threads)
    # The stage's own progress is shown instead.
    disable_progress_bar()
    parameters = spec.parameters
    languages = [parameters.pivot_language, *parameters.target_languages]
    held_out = [] if spec.world is None else _sentences(spec.world, "text/heldout_pairs.parquet", languages)
    metrics: dict[str, Any]
    try:
        if not parameters.local_languages:
            metrics = {}
        elif parameters.weights is None:
            source = work.out / HUGGING_FACE_FOLDER
            assert spec.world is not None  # noqa: S101  # the spec's validator
            pairs = _sentences(spec.world, "text/pairs.parquet", languages)
            network, words, metrics = _train(pairs, parameters, progress)
            training.save(network, words, source)
        else:
            source = locate(parameters.weights, sha256=parameters.sha256)
            metrics = {"weights": parameters.weights}
        if parameters.local_languages:
            progress.say(f"converting to CTranslate2, {parameters.quantization}")
            convert(source, work.out, quantization=parameters.quantization)
        if parameters.server is not None:
            metrics["server"] = f"{parameters.server.server.model} at {parameters.server.server.base_url}"
            text = parameters.server.model_dump_json(indent=1)
            (work.out / SERVER_FILE).write_text(text + "\n", encoding="utf-8")
        translator = open_translator(
            work.out, Decoding(), spec.cache or work.folder, version="", device="cpu", threads=spec.threads,
            conduct=spec.conduct, account=str(spec.output), say=progress.say,
        )  # fmt: skip
        for target in parameters.target_languages if held_out else ():
            metrics[target] = score(translator, held_out, parameters.pivot_language, target)
            progress.say(f"{parameters.pivot_language} -> {target}: BLEU {metrics[target]['bleu']}")
    except WeightsError as error:
        raise BadInput(error.message, where=error.where, remedy=error.remedy) from error
    return Outcome(metrics=metrics)


def score(
    translator: TranslatesTexts, rows: Sequence[dict[str, str]], source: str, target: str
) -> dict[str, Any]:
    """BLEU and chrF of translating the rows, with the signatures that it takes to compare them."""
    references = [row[target] for row in rows]
    started = time.monotonic()
    outputs = [output.text for output in translator.translate([row[source] for row in rows], source, target)]
    seconds = time.monotonic() - started
    bleu, chrf = BLEU(tokenize=tokenizer_for(target)), CHRF()
    return {
        "bleu": round(bleu.corpus_score(outputs, [references]).score, 2),
        "bleu_signature": str(bleu.get_signature()),
        "chrf": round(chrf.corpus_score(outputs, [references]).score, 2),
        "chrf_signature": str(chrf.get_signature()),
        "held_out_sentences": len(rows),
        "equal_to_reference": round(sum(map(str.__eq__, outputs, references)) / max(1, len(rows)), 4),
        "sentences_per_second": round(len(rows) / seconds, 1),
        "samples": [
            {"source": row[source], "output": output, "reference": row[target]}
            for row, output in zip(rows[:SAMPLES], outputs, strict=False)
        ],
    }


def _train(
    rows: Sequence[dict[str, str]], parameters: TranslatorParameters, progress: Progress
) -> tuple[M2M100ForConditionalGeneration, vocabulary.Vocabulary, dict[str, Any]]:
    pivot = parameters.pivot_language
    directions = [(pivot, target) for target in parameters.target_languages]
    if parameters.both_directions:
        directions += [(target, source) for source, target in directions]
    progress.say(f"making the vocabulary of {len(rows)} sentence pairs")
    texts = (row[language] for row in rows for language in (pivot, *parameters.target_languages))
    words = vocabulary.train(texts, parameters.shape.vocabulary)
    torch.manual_seed(parameters.training.seed)
    network = training.build(parameters.shape, words)
    pairs = training.examples(rows, directions, words)
    metrics = training.train(network, pairs, parameters.training, words, progress)
    return network, words, {"sentence_pairs": len(rows), "vocabulary": words.size, **metrics}


def _sentences(world: Path, name: str, languages: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a file of parallel sentences, one column per language.

    Raises:
        BadInput: the world has no such file, or lacks a language.
    """
    paths = manifest.files(world, name)
    if not paths:
        raise BadInput(f"the world has no {name}", where=world, remedy="run the world's stage again")
    present = pq.read_schema(paths[0]).names
    if lacking := [language for language in languages if language not in present]:
        raise BadInput(
            f"these sentences are not given in: {', '.join(lacking)}",
            where=paths[0],
            remedy="add the language to the world's `languages`, or take it out of `target_languages`",
        )
    rows: list[dict[str, str]] = pq.read_table(paths[0], columns=list(languages)).to_pylist()
    if not rows:
        raise BadInput("there are no sentences in it", where=paths[0], remedy="make a larger world")
    return rows
