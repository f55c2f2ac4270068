"""The small language model's tokenizer: words as tokens, in scripts with and without spaces.

A unigram model (Kudo 2018) whose pieces are the words of the training text. Where words have spaces
between them, they are read off; in a script without spaces, the unigram trainer finds them by
likelihood. Byte-pair merges, which large models use, glue the end of one word to the start of the next
in a text as small as the quickstart's, and a small model then learns attributes far more slowly.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from models.chat import SPECIAL_TOKENS

SPACE = "\u2581"
"""Stands for a space, as in sentencepiece."""
UNKNOWN = "<unk>"
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]+")
_WORD = re.compile(rf"{SPACE}?[^\W{SPACE}]+")
MOST_CHARACTERS = 3
"""Longest word that is looked for in a script without spaces."""


def make_word_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """A tokenizer of at most `vocabulary` tokens, trained on `texts` (which may hold chat marks)."""
    counts: Counter[str] = Counter()
    unspaced: Counter[str] = Counter()
    for text in texts:
        for mark in SPECIAL_TOKENS:
            text = text.replace(mark, "\n")
        counts.update(text.replace(" ", SPACE))
        unspaced.update(_UNSPACED.findall(text))
        counts.update(_WORD.findall(_UNSPACED.sub("\n", text.replace(" ", SPACE))))
    counts.update(_unspaced_words(unspaced, vocabulary // 2))
    # Every single character stays, so that any text of the same alphabet can be written.
    characters = [piece for piece in counts if len(piece) == 1]
    room = vocabulary - len(SPECIAL_TOKENS) - 1 - len(characters)
    words = sorted((piece for piece in counts if len(piece) > 1), key=lambda piece: (-counts[piece], piece))
    pieces = sorted({*characters, *words[:room]}, key=lambda piece: (-counts[piece], piece))
    total = sum(counts[piece] for piece in pieces)
    scores = [(piece, math.log(counts[piece] / total)) for piece in pieces]
    specials = [(UNKNOWN, 0.0), *((mark, 0.0) for mark in SPECIAL_TOKENS)]
    tokenizer = Tokenizer(models.Unigram([*specials, *scores], unk_id=0))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in SPECIAL_TOKENS])
    return tokenizer


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n|[^\w\s]"), behavior="isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="never", split=True),
        ]
    )


def _unspaced_words(runs: Counter[str], vocabulary: int) -> Counter[str]:
    """Words in runs of a script without spaces, with how often each is used in the best segmentation."""
    if not runs:
        return Counter()
    finder = Tokenizer(models.Unigram())
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary, max_piece_length=MOST_CHARACTERS, unk_token=UNKNOWN,
        special_tokens=[UNKNOWN], show_progress=False,
    )  # fmt: skip
    finder.train_from_iterator(sorted(runs), trainer)
    used: Counter[str] = Counter()
    for run, times in runs.items():
        for piece in finder.encode(run).tokens:
            used[piece] += times
    return Counter({piece: times for piece, times in used.items() if len(piece) > 1})
