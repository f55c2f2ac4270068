"""The vocabulary of a small M2M-100: sentencepiece pieces, then a token per language, as the original lays it out.

Ids: <s> 0, <pad> 1, </s> 2, <unk> 3, the pieces, M2M-100's hundred language tokens, eight made-up words.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

from models.translator import END, PADDING, SENTENCEPIECE_FILE, START, UNKNOWN, VOCABULARY_FILE
from pipelines.errors import BadInput

_SPECIAL = (START, PADDING, END, UNKNOWN)
_MADE_UP_WORDS = 8
_LANGUAGES: Sequence[str] = FAIRSEQ_LANGUAGE_CODES["m2m100"]


class Vocabulary:
    """Puts sentences into the ids that M2M-100 reads and writes."""

    def __init__(self, model: bytes) -> None:
        """`model`: a sentencepiece model as it stands in its file."""
        self._model = model
        self._sentencepiece = sentencepiece.SentencePieceProcessor(model_proto=model)
        count = self._sentencepiece.get_piece_size()
        pieces = [self._sentencepiece.id_to_piece(index) for index in range(count)]
        tokens = [*_SPECIAL, *(piece for piece in pieces if piece not in _SPECIAL)]
        self._ids = {token: index for index, token in enumerate(tokens)}

    @property
    def size(self) -> int:
        return len(self._ids) + len(_LANGUAGES) + _MADE_UP_WORDS

    @property
    def padding(self) -> int:
        return self._ids[PADDING]

    @property
    def end(self) -> int:
        return self._ids[END]

    def encode(self, text: str, language: str) -> list[int]:
        """[language token, pieces, </s>].

        Raises:
            BadInput: M2M-100 has no token for the language.
        """
        if language not in _LANGUAGES:
            raise BadInput(
                f"M2M-100 has no token for the language {language!r}",
                where="target_languages",
                remedy=f"use one of: {', '.join(_LANGUAGES)}",
            )
        pieces: list[str] = self._sentencepiece.encode(text, out_type=str)
        unknown = self._ids[UNKNOWN]
        marked = len(self._ids) + _LANGUAGES.index(language)
        return [marked, *(self._ids.get(piece, unknown) for piece in pieces), self.end]

    def save(self, folder: Path) -> None:
        """Write `sentencepiece.bpe.model` and `vocab.json`, the files of transformers' tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SENTENCEPIECE_FILE).write_bytes(self._model)
        text = json.dumps(self._ids, ensure_ascii=False, indent=1)
        (folder / VOCABULARY_FILE).write_text(text + "\n", encoding="utf-8")


def train(texts: Iterable[str], size: int) -> Vocabulary:
    """A vocabulary of `size` pieces by byte pair encoding; the same for the same set of texts.

    Raises:
        BadInput: the texts cannot be cut into that many pieces, or have more characters than that.
    """
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sorted(set(texts))),
            model_writer=written,
            model_type="bpe",
            vocab_size=size,
            character_coverage=1.0,
            # The default rule turns full-width punctuation into ASCII, which Chinese is not written with.
            normalization_rule_name="identity",
            bos_id=-1,
            eos_id=-1,
            unk_id=0,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise BadInput(
            f"no vocabulary of {size} pieces can be made: {str(error).strip().splitlines()[-1]}",
            where="shape.vocabulary",
            remedy="change the size as told",
        ) from error
    return Vocabulary(written.getvalue())
