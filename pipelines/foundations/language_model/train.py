"""Training the small language model on described scenes and questions about them, in both languages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from models.chat import Encoded, encode_conversation, padding_token, prompt
from models.chat_template import TemplateChat
from models.language_model import (
    SmallConfig,
    Supervision,
    make_language_model,
    save_language_model,
    supervised_losses,
)
from models.packing import Packing
from models.word_tokenizer import make_word_tokenizer
from pipelines.foundations.language_model.spec import LanguageModelSpec
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.stage import Outcome, Work
from pipelines.training.loop import train
from pipelines.training.publish import put_weights
from pipelines.training.samples import Sample

TOKENIZER_DOCUMENTS = 5_000
"""Documents that the tokenizer is trained on: enough to see every word of the grammars many times."""


class TextModel(nn.Module):
    """The language model alone, under the trainer's calling convention."""

    def __init__(self, language_model: PreTrainedModel) -> None:
        super().__init__()
        self.language_model = language_model

    def forward(
        self, ids: Tensor, labels: Tensor, pixels: None,
        packing: Packing | None = None, supervision: Supervision | None = None,
    ) -> Tensor:  # fmt: skip
        """The loss of each supervised token."""
        embeddings = self.language_model.get_input_embeddings()(ids)
        return supervised_losses(self.language_model, embeddings, labels, packing, supervision, ids)


class DocumentSamples:
    """The world's documents: a description where an image would stand, and a conversation about it."""

    def __init__(self, documents: list[dict[str, Any]], tokenizer: Tokenizer) -> None:
        self._encoded = [
            encode_conversation(
                tokenizer, [(turn["question"], turn["answer"]) for turn in document["turns"]],
                context=document["context"],
            )
            for document in documents
        ]  # fmt: skip

    def __len__(self) -> int:
        return len(self._encoded)

    def text(self, index: int, epoch: int | None) -> tuple[Encoded, str]:
        return self._encoded[index], "all"

    def images(self, index: int) -> int:
        return 0

    def sample(self, index: int, epoch: int) -> Sample:
        return Sample(self._encoded[index])


def run(spec: LanguageModelSpec, work: Work, progress: Progress) -> Outcome:
    """Train the tokenizer and the model; publish a transformers folder and the loss curve."""
    documents = read_documents(manifest.file(spec.world, "documents.parquet"))
    tokenizer = make_word_tokenizer(_texts(documents[:TOKENIZER_DOCUMENTS]), spec.shape.vocabulary)
    vocabulary = tokenizer.get_vocab_size()
    model = make_language_model(
        SmallConfig(**spec.shape.model_dump(exclude={"vocabulary"})),
        vocabulary=vocabulary,
        seed=spec.optimisation.seed,
    )
    trained = train(
        TextModel(model), DocumentSamples(documents, tokenizer), pad=padding_token(tokenizer),
        optimisation=spec.optimisation, work=work, progress=progress, what="language model, text only",
    )  # fmt: skip
    if int(os.environ.get("RANK", "0")) == 0:
        put_weights(model, {name.removeprefix("language_model."): w for name, w in trained.weights.items()})
        save_language_model(model, TemplateChat(tokenizer, "chatml"), work.out)
    return Outcome(metrics={**trained.metrics, "vocabulary": vocabulary})


def read_documents(path: Path) -> list[dict[str, Any]]:
    """The documents: mappings with `context` and `turns` (see pipelines.world.documents)."""
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def _texts(documents: list[dict[str, Any]]) -> list[str]:
    """The conversations as the model will read them, so that the words of the chat format are words too."""
    return [
        prompt(turn["question"], context=document["context"]) + turn["answer"]
        for document in documents
        for turn in document["turns"]
    ]
