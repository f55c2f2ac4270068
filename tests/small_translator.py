"""A translator trained in seconds: it knows the world's short sentences and one phrasing of its captions."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.foundations.translator.spec import (
    STAGE,
    TranslatorParameters,
    TranslatorShape,
    TranslatorSpec,
    TranslatorTraining,
)
from pipelines.stage import execute
from pipelines.world.grammar import grammar
from pipelines.world.text import few_sentences, held_out_sentences, parallel_sentences
from tests.tables import publish

LANGUAGES = ("en", "zh")
SHORT_SENTENCES = len(few_sentences([grammar(language) for language in LANGUAGES]))
SHAPE = TranslatorShape(width=64, layers=1, heads=2, feed_forward=64, vocabulary=256)


def world(table: Path, sentences: int = SHORT_SENTENCES) -> Path:
    """A world table with texts alone."""

    def write(folder: Path) -> None:
        (folder / "text").mkdir()
        pairs = parallel_sentences(sentences, seed=1, languages=LANGUAGES)
        pq.write_table(pa.Table.from_pylist(pairs), folder / "text/pairs.parquet")
        held_out = held_out_sentences(4, seed=1, languages=LANGUAGES)
        pq.write_table(pa.Table.from_pylist(held_out), folder / "text/heldout_pairs.parquet")

    return publish(table, write)


def spec(world_table: Path, output: Path, *, steps: int, quantization: str = "float32") -> TranslatorSpec:
    return TranslatorSpec(
        output=output,
        world=world_table,
        parameters=TranslatorParameters.model_validate(
            {
                "shape": SHAPE,
                "training": TranslatorTraining(steps=steps, warmup_steps=10, learning_rate=5e-3),
                "quantization": quantization,
            }
        ),
        threads=1,
    )


@cache
def short_sentence_translator() -> Path:
    """A published translator that has learnt the short sentences by heart, made once per test run."""
    folder = Path(tempfile.mkdtemp(prefix="translator-"))
    table = world(folder / "world")
    execute(STAGE, spec(table, folder / "translator", steps=150))
    return folder / "translator"
