"""The small language model's tokenizer: words as tokens, in scripts with and without spaces.

A unigram model (Kudo 2018) whose pieces are the words of the training text: read off where words have
spaces between them, found by jieba (as for CPM-Ant and CPM-Bee) in Chinese. Byte-pair merges, which large
models use, glue the end of one word to the start of the next in a text as small as the quickstart's, and
a small model then learns attributes far more slowly. jieba is needed for training only.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import rjieba
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from models.chat import SPECIAL_TOKENS

SPACE = "\u2581"
"""Stands for a space, as in sentencepiece."""
UNKNOWN = "<unk>"
_HAN = re.compile(r"[\u3400-\u9fff]+")
_WORD = re.compile(rf"\b[A-Z]\.(?={SPACE})|{SPACE}?[^\W{SPACE}]+")
"""A word with the space before it; the letter of an option and its point are one word."""


def make_word_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """A tokenizer of at most `vocabulary` tokens, trained on `texts` (which may hold chat marks)."""
    counts: Counter[str] = Counter(f"\n{SPACE}")
    runs: Counter[str] = Counter()
    for text in texts:
        for mark in SPECIAL_TOKENS:
            text = text.replace(mark, "\n")
        text = text.replace(" ", SPACE)
        counts.update(text)
        counts.update(_WORD.findall(_HAN.sub("\n", text)))
        runs.update(_HAN.findall(text))
    for run, times in runs.items():
        for word in rjieba.cut(run):
            counts[word] += times
    # Every single character stays, so that any text of the same alphabet can be written.
    characters = [piece for piece in counts if len(piece) == 1]
    room = vocabulary - len(SPECIAL_TOKENS) - 1 - len(characters)
    words = sorted((piece for piece in counts if len(piece) > 1), key=lambda piece: (-counts[piece], piece))
    pieces = sorted({*characters, *words[:room]}, key=lambda piece: (-counts[piece], piece))
    total = sum(counts[piece] for piece in pieces)
    scores = [(piece, math.log(counts[piece] / total)) for piece in pieces]
    specials = [(UNKNOWN, 0.0), *((mark, 0.0) for mark in SPECIAL_TOKENS)]
    tokenizer = Tokenizer(models.Unigram([*specials, *scores], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n|(?<!\b[A-Z])[^\w\s]"), behavior="isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="never", split=True),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in SPECIAL_TOKENS])
    return tokenizer
