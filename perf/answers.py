"""Answers per second: in batches with image states kept, against one question at a time, on equal weights in one run.

One at a time is how VLMEvalKit and others ask local models: each question sees its image and is generated alone. The
model has the quickstart's shape and random weights; it is asked the world's questions with four options, in two languages and
every rotation. Both sides write the same number of tokens and must give the same answers. They take turns, round by
round, so that whatever else the machine does falls on both. Loading the model is on neither side.

    OMP_NUM_THREADS=2 python -m perf.answers
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from models.chat import SPECIAL_TOKENS
from models.language_model import SmallConfig, make_language_model
from models.vision import VisionConfig
from models.vision_language import VisionLanguageModel, load
from models.visual import make_visual_module
from pipelines.answer.answerer import NoAnswer, OwnModel
from pipelines.benchmarks.files import Files
from pipelines.benchmarks.pictures import opened
from pipelines.benchmarks.question import Asked
from pipelines.benchmarks.sets import mmmb
from pipelines.progress import Progress
from pipelines.world import benchmark

T = TypeVar("T")
LEAST_RATIO = 4.0
LANGUAGES = ("en", "zh")


def tiny_twin(folder: Path) -> None:
    """The quickstart's model with random weights and a byte-level tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL_TOKENS), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    words = [one.prompt for one in questions(8)]
    tokenizer.train_from_iterator(words, trainer)
    shape = SmallConfig(positions=1024)
    language_model = make_language_model(shape, vocabulary=tokenizer.get_vocab_size(), seed=1)
    visual = make_visual_module(VisionConfig(), shape.width, seed=2)
    VisionLanguageModel(visual, language_model, tokenizer).save(folder)


def questions(items: int) -> list[Asked]:
    """The world's questions with options, every rotation, in both languages."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn = benchmark.draw_items(items, seed=1, choice=True)
        for language in LANGUAGES:
            benchmark.write_mmmb(drawn, language, folder / f"mmmb_{language}.tsv")
        files = Files.in_folder(folder)
        return [one for language in LANGUAGES for one in mmmb.questions(files, language)]


def one_at_a_time(model: VisionLanguageModel, asked: list[Asked], tokens: int) -> list[str]:
    """Each question alone, its image seen anew."""
    return [model.answer([opened(one)], [one.prompt], max_new_tokens=tokens)[0] for one in asked]


def in_batches(answerer: OwnModel, asked: list[Asked], tokens: int) -> list[str | NoAnswer]:
    """As the answer stage asks: images once each, then all questions."""
    answerer.see({one.image_sha256: one for one in asked}, Progress("perf", silent=True))
    said = {key: text for batch in answerer.answer(asked, tokens) for key, text in batch.items()}
    return [said[one.key] for one in asked]


def timed(ask: Callable[[], list[T]]) -> tuple[float, list[T]]:
    started = time.perf_counter()
    said = ask()
    return time.perf_counter() - started, said


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=16, help="tokens of every answer")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    asked = questions(options.items)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny_twin(folder)
        model = load(folder)
        seconds: dict[str, list[float]] = {"one at a time": [], "in batches": []}
        for _ in range(options.rounds):
            answerer = OwnModel(folder, scratch=folder / "features.bin", batch_size=options.batch_size)
            slow, alone = timed(lambda: one_at_a_time(model, asked, options.tokens))
            fast, together = timed(lambda answerer=answerer: in_batches(answerer, asked, options.tokens))  # type: ignore[misc]
            if alone != together:
                differing = sum(a != b for a, b in zip(alone, together, strict=True))
                raise SystemExit(f"{differing} of {len(asked)} answers differ: the comparison is void")
            seconds["one at a time"].append(slow)
            seconds["in batches"].append(fast)
    for way, spent in seconds.items():
        rates = ", ".join(f"{len(asked) / one:.1f}" for one in spent)
        print(f"{way:14} {len(asked) / min(spent):8.1f} answers/s at best  (rounds: {rates})")
    ratio = min(seconds["one at a time"]) / min(seconds["in batches"])
    words = f"ratio {ratio:.1f}, aimed at {LEAST_RATIO:g}"
    if ratio < LEAST_RATIO:
        raise SystemExit(f"{words}: NOT REACHED")
    print(f"{words}: reached")


if __name__ == "__main__":
    main()
