"""Sentences per second of the translator against transformers' `generate`, on equal weights and equal output.

(a) the loop that model cards show: batches in the order of the texts, greedy;
(b) the best that `generate` is given by hand: the same, texts sorted by length, larger batches;
(c) this project's translator: CTranslate2, float32, as the stages call it; (d) the same weights in int8.

All run on the same threads and take turns, round by round, so that whatever else the machine does falls on all of
them. The small shape is trained on the world's sentences first, so that its outputs end where sentences end. The
published shapes have random weights and a vocabulary of the published size: each output is cut off at --tokens.

    OMP_NUM_THREADS=2 python -m perf.translate                        # the quickstart's translator, trained here
    OMP_NUM_THREADS=2 python -m perf.translate --model DATA/hf        # an M2M-100 folder that there is
    OMP_NUM_THREADS=2 python -m perf.translate --shape 418M --sentences 48 --rounds 2
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import M2M100ForConditionalGeneration, M2M100Tokenizer
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from models.translator import Translator, convert
from pipelines.foundations.translator import training, vocabulary
from pipelines.foundations.translator.spec import TranslatorShape, TranslatorTraining
from pipelines.progress import Progress
from pipelines.world.text import parallel_sentences

SHAPES = {
    "small": TranslatorShape(),
    "418M": TranslatorShape(width=1024, layers=12, heads=16, feed_forward=4096),
    "1.2B": TranslatorShape(width=1024, layers=24, heads=16, feed_forward=8192),
}
PUBLISHED_PIECES = 128_004
LANGUAGES = ("en", "zh")
Texts = Sequence[str]


def make(shape: str, steps: int, folder: Path) -> None:
    """Write an M2M-100 of the shape as transformers would; the small one trained, the others as they come."""
    rows = parallel_sentences(6000, seed=1, languages=LANGUAGES)
    words = vocabulary.train((row[one] for row in rows for one in LANGUAGES), SHAPES[shape].vocabulary)
    torch.manual_seed(0)
    if shape == "small":
        network = training.build(SHAPES[shape], words)
        pairs = training.examples(rows, [LANGUAGES], words)
        training.train(network, pairs, TranslatorTraining(steps=steps), words, Progress("perf"))
    else:
        for number in range(PUBLISHED_PIECES - len(words._ids)):
            words._ids[f"▁filler{number}"] = len(words._ids)
        network = training.build(SHAPES[shape], words)
    training.save(network, words, folder)


class Generate:
    """transformers' `generate`, float32, greedy."""

    def __init__(self, folder: Path, batch: int, *, by_length: bool, tokens: int | None) -> None:
        self.tokenizer = M2M100Tokenizer.from_pretrained(folder, src_lang="en")
        self.network = M2M100ForConditionalGeneration.from_pretrained(folder).eval()
        self.batch, self.by_length, self.tokens = batch, by_length, tokens

    @torch.inference_mode()
    def ids(self, texts: Texts) -> list[list[int]]:
        """The ids that are written for each text, from the target language's token on."""
        order = (
            sorted(range(len(texts)), key=lambda i: len(texts[i])) if self.by_length else range(len(texts))
        )
        order = list(order)
        written: list[list[int]] = [[]] * len(texts)
        limits = {"max_new_tokens": 256} if self.tokens is None else {"max_new_tokens": self.tokens, "min_new_tokens": self.tokens}  # fmt: skip
        for start in range(0, len(order), self.batch):
            part = order[start : start + self.batch]
            inputs = self.tokenizer([texts[i] for i in part], return_tensors="pt", padding=True)
            outputs = self.network.generate(
                **inputs, forced_bos_token_id=self.tokenizer.get_lang_id("zh"), num_beams=1, do_sample=False, **limits
            )  # fmt: skip
            for i, row in zip(part, outputs.tolist(), strict=True):
                written[i] = row[1:]
        return written

    def __call__(self, texts: Texts) -> list[str]:
        special = {self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, self.tokenizer.get_lang_id("zh")}
        tokens = [[one for one in row if one not in special] for row in self.ids(texts)]
        return [_plain(self.tokenizer.convert_ids_to_tokens(row)) for row in tokens]


class Ours:
    """This project's translator."""

    def __init__(self, folder: Path, threads: int, tokens: int | None) -> None:
        self.translator = Translator(folder, threads=threads, max_output_tokens=tokens or 256)

    def __call__(self, texts: Texts) -> list[str]:
        return [output.text.replace(" ", "") for output in self.translator.translate(texts, "en", "zh")]

    def tokens(self, texts: Texts, count: int) -> list[str]:
        """What is written where outputs do not end: pieces that sentencepiece does not know stay as they are."""
        encoded = self.translator._pieces.encode(list(texts), out_type=str)
        results = self.translator._model.translate_batch(
            [["__en__", *pieces, "</s>"] for pieces in encoded],
            target_prefix=[["__zh__"]] * len(texts), beam_size=1, max_decoding_length=count, min_decoding_length=count,
        )  # fmt: skip
        return [_plain(result.hypotheses[0][1:]) for result in results]


def _plain(tokens: list[str]) -> str:
    return "".join(tokens).replace("▁", "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=sorted(SHAPES), default="small")
    parser.add_argument(
        "--model", type=Path, help="an M2M-100 folder as transformers writes it; none: made here"
    )
    parser.add_argument("--steps", type=int, default=300, help="of training the small one")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=24, help="length of each output of a published shape")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs=2, default=(32, 128), metavar=("A", "B"))
    arguments = parser.parse_args()
    threads = int(os.environ.get("OMP_NUM_THREADS", "2"))
    torch.set_num_threads(threads)
    disable_progress_bar()
    set_verbosity_error()
    rows = parallel_sentences(arguments.sentences * 2, seed=7, languages=LANGUAGES)
    texts = list(dict.fromkeys(row["en"] for row in rows))[: arguments.sentences]
    random.Random(1).shuffle(texts)
    ends = arguments.model is not None or arguments.shape == "small"
    tokens = None if ends else arguments.tokens
    with tempfile.TemporaryDirectory() as scratch:
        source = arguments.model or Path(scratch) / "hf"
        if arguments.model is None:
            make(arguments.shape, arguments.steps, source)
        for quantization in ("float32", "int8"):
            convert(source, Path(scratch) / quantization, quantization=quantization)
        small, large = arguments.batches
        ours = Ours(Path(scratch) / "float32", threads, tokens)
        contestants: dict[str, Callable[[Texts], list[str]]] = {
            f"(a) generate, batches of {small} as they come": Generate(
                source, small, by_length=False, tokens=tokens
            ),
            f"(b) generate, batches of {large} by length": Generate(
                source, large, by_length=True, tokens=tokens
            ),
            "(c) this project, float32": ours,
            "(d) this project, int8": Ours(Path(scratch) / "int8", threads, tokens),
        }
        seconds = dict.fromkeys(contestants, 0.0)
        outputs: dict[str, list[str]] = {}
        for _ in range(arguments.rounds):
            for name, translate in contestants.items():
                started = time.perf_counter()
                outputs[name] = translate(texts)
                seconds[name] += time.perf_counter() - started
        first, second, third, fourth = contestants
        if tokens is not None:
            outputs[third] = ours.tokens(texts, tokens)
    print(
        f"\n{len(texts)} sentences, {arguments.rounds} rounds, {threads} threads, shape {arguments.model or arguments.shape}"
    )
    for name in contestants:
        rate = arguments.rounds * len(texts) / seconds[name]
        print(
            f"{name:44s} {rate:9.1f} sentences/s   {seconds[first] / seconds[name]:6.2f} x (a)   "
            f"{seconds[second] / seconds[name]:6.2f} x (b)"
        )
    # Cut off at a length that the two count differently, by a token.
    same = str.__eq__ if ends else lambda one, other: one.startswith(other) or other.startswith(one)
    equal = sum(map(same, outputs[first], outputs[third])) / len(texts)
    sorted_equal = sum(map(str.__eq__, outputs[first], outputs[second])) / len(texts)
    print(f"outputs of (c) equal to (a): {equal:.2%}; of (b) equal to (a): {sorted_equal:.2%}")
    if ends:
        print(
            f"outputs of (d) equal to (a): {sum(map(str.__eq__, outputs[first], outputs[fourth])) / len(texts):.2%}"
        )


if __name__ == "__main__":
    main()
