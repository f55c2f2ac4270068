"""Translation with the M2M-100 architecture, run by CTranslate2.

M2M-100 (Fan et al. 2020) reads `__source__ pieces </s>` and writes `__target__ pieces </s>`: the language
tokens stand in front, and neither CTranslate2 nor sentencepiece adds them. Without the source token the
model loops; the target token is a forced prefix and is not part of the translation.

A model folder holds `ct2/` (what CTranslate2's own converter made), and of the original
`sentencepiece.bpe.model`, `vocab.json` and `config.json`. Models made here and models from a hub are
converted by the same function, `convert`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ctranslate2
import sentencepiece

from models.weights import WeightsError, read_json, require, require_weights

CT2_FOLDER = "ct2"
SENTENCEPIECE_FILE = "sentencepiece.bpe.model"
VOCABULARY_FILE = "vocab.json"
CONFIG_FILE = "config.json"
END, UNKNOWN, PADDING, START = "</s>", "<unk>", "<pad>", "<s>"
_FILES = (
    f"{CT2_FOLDER}/model.bin", f"{CT2_FOLDER}/config.json", f"{CT2_FOLDER}/shared_vocabulary.json",
    SENTENCEPIECE_FILE, CONFIG_FILE,
)  # fmt: skip


class Output(NamedTuple):
    """One translation as the model gave it."""

    text: str
    finished: bool
    """Whether the model ended the sentence. If not, it was cut off at the length limit; of a text that is
    longer than the model reads there is no translation at all."""
    failure: str = ""
    """Why there is no output at all, where a translator could not be asked."""


def language_token(language: str) -> str:
    """The token of a language: `zh` -> `__zh__`."""
    return f"__{language}__"


class Translator:
    """An M2M-100 model in a folder, ready to translate."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "cpu",
        threads: int = 0,
        beam_size: int = 1,
        max_batch_tokens: int = 4096,
        max_output_tokens: int = 256,
    ) -> None:
        """`threads`: CPU threads, 0 for all; `max_batch_tokens`: padded source tokens per batch.

        Raises:
            WeightsError: the folder lacks a file, or a file cannot be loaded.
        """
        require(folder, _FILES)
        self.folder = folder
        self._beam_size = beam_size
        self._max_batch_tokens = max_batch_tokens
        self._positions = int(read_json(folder / CONFIG_FILE)["max_position_embeddings"])
        self._max_output_tokens = min(max_output_tokens, self._positions - len((END, START)))
        tokens = json.loads((folder / CT2_FOLDER / "shared_vocabulary.json").read_text(encoding="utf-8"))
        self._known = frozenset(tokens)
        self._special = frozenset({END, PADDING, START})
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / SENTENCEPIECE_FILE))
            self._model = ctranslate2.Translator(
                str(folder / CT2_FOLDER), device=device, inter_threads=1, intra_threads=threads
            )
        except (RuntimeError, ValueError, OSError) as error:
            # What the two libraries raise for damaged files and for devices that are not there.
            raise WeightsError(
                f"this translation model cannot be loaded: {error}",
                where=folder,
                remedy="convert the model again, or correct the device",
            ) from error

    @property
    def languages(self) -> list[str]:
        """The languages that the vocabulary has tokens for; not all of them need be trained."""
        marked = (token for token in self._known if token.startswith("__") and token.endswith("__"))
        return sorted(token[2:-2] for token in marked if len(token) > len("____"))

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[Output]:
        """The translation of each text, in the order of `texts`.

        Batches hold texts of similar length, so that little is padded. Which texts share a batch
        depends on the set of texts and not on their order.

        Raises:
            WeightsError: the model does not know a language.
        """
        for language in (source, target):
            if language_token(language) not in self._known:
                raise WeightsError(
                    f"this model has no token for the language {language!r}",
                    where=self.folder,
                    remedy=f"use one of: {', '.join(self.languages)}",
                )
        encoded: list[list[str]] = self._pieces.encode(list(texts), out_type=str)
        # With the language token and the end, which take positions too. CTranslate2 fails on more.
        readable = (index for index, pieces in enumerate(encoded) if len(pieces) + 2 <= self._positions)
        order = sorted(readable, key=lambda index: (len(encoded[index]), texts[index]))
        results = self._model.translate_batch(
            [[language_token(source), *encoded[index], END] for index in order],
            target_prefix=[[language_token(target)]] * len(order),
            beam_size=self._beam_size,
            max_batch_size=self._max_batch_tokens,
            batch_type="tokens",
            max_decoding_length=self._max_output_tokens,
            return_end_token=True,
        )
        outputs = [Output("", finished=False)] * len(texts)
        for index, result in zip(order, results, strict=True):
            outputs[index] = self._decoded(result.hypotheses[0], language_token(target))
        return outputs

    def _decoded(self, tokens: list[str], prefix: str) -> Output:
        finished = bool(tokens) and tokens[-1] == END
        if tokens and tokens[0] == prefix:
            tokens = tokens[1:]
        pieces = [token for token in tokens if token not in self._special]
        return Output(self._pieces.decode(pieces).strip(), finished)


def convert(source: Path, folder: Path, *, quantization: str | None = None) -> None:
    """Make the model folder `folder` from a transformers M2M-100 folder, by CTranslate2's own converter.

    `quantization` is one of CTranslate2's: int8, int8_float16, int16, float16, bfloat16, float32;
    None keeps the precision of the weights.

    Raises:
        WeightsError: the source lacks a file, has its weights as a pickle, or is another architecture.
    """
    require_weights(source)
    require(source, (CONFIG_FILE, SENTENCEPIECE_FILE, VOCABULARY_FILE))
    # Imported here: translating needs neither transformers nor torch.
    from ctranslate2.converters import TransformersConverter
    from transformers import M2M100Tokenizer

    class Converter(TransformersConverter):
        def load_tokenizer(self, tokenizer_class: type, name: str, **options: object) -> M2M100Tokenizer:
            # transformers 5 lists the language tokens only where the tokenizer's config repeats them,
            # and the converter takes the vocabulary from that list.
            tokens = list(M2M100Tokenizer.from_pretrained(name).lang_code_to_token.values())
            return M2M100Tokenizer.from_pretrained(name, additional_special_tokens=tokens)

        def load_model(self, model_class: Any, name: str, **options: object) -> Any:
            # transformers begins weights that are missing anew, and goes on.
            network, found = model_class.from_pretrained(name, output_loading_info=True, **options)
            if lacking := sorted(found["missing_keys"]):
                raise ValueError(f"the weights lack {lacking[0]} ({len(lacking)} in all)")
            return network

    folder.mkdir(parents=True, exist_ok=True)
    try:
        Converter(str(source)).convert(str(folder / CT2_FOLDER), quantization=quantization, force=True)
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"CTranslate2 cannot convert this model: {error}",
            where=source,
            remedy="the folder must hold an M2M100ForConditionalGeneration with its tokenizer files",
        ) from error
    for name in (SENTENCEPIECE_FILE, VOCABULARY_FILE, CONFIG_FILE):
        shutil.copyfile(source / name, folder / name)
