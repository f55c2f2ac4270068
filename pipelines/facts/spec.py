"""The spec of the facts: which are found out. None of them drops a pair: that is the filter's part."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipelines.crawls import LANGUAGE_PATTERN
from pipelines.stage import InputTable, Stage, StageSpec, lazy

NAME = "pair_facts"
CODE_VERSION = "1"
LANGUAGES = ["en", "zh", "de", "fr", "es", "it", "pt", "ar", "tr", "ru", "ja", "ko"]

Language = Annotated[str, StringConstraints(pattern=LANGUAGE_PATTERN)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NearDuplicates(_Section):
    """Which images count as copies of each other; null switches a kind off."""

    hash_bits: int | None = Field(
        None, ge=0, le=8, description="bits of 64 in which two perceptual hashes may differ; 3 is usual"
    )
    cosine: float | None = Field(
        None, gt=0, le=1,
        description="least cosine of two images' embeddings, within a cluster; needs `score.keep_embeddings`",
    )  # fmt: skip
    rows_per_cluster: int = Field(
        1000, ge=2, description="mean size of an embedding cluster: pairs are compared within one"
    )
    seed: int = 0


class Decontamination(_Section):
    """Which pairs show what a benchmark asks about; null switches a kind off."""

    hash_bits: int | None = Field(
        None, ge=0, le=8, description="bits of 64 in which a benchmark image's perceptual hash may differ"
    )
    words: int | None = Field(
        None, ge=3, description="so many words in a row shared with a question, or a whole shorter question"
    )


class FactsParameters(_Section):
    """The `facts` section of a recipe."""

    languages: list[Language] = Field(
        LANGUAGES, description="which lingua chooses from, per caption; empty: captions have no language"
    )
    near_duplicates: NearDuplicates = NearDuplicates()
    decontamination: Decontamination = Decontamination()


class FactsSpec(StageSpec):
    """Find out facts about the pairs of a crawl, or about its conversations."""

    raw_pairs: InputTable
    clip_scores: InputTable | None = Field(
        None, description="scores with perceptual hashes, and embeddings if kept; of conversations: none"
    )
    benchmarks: dict[str, InputTable] = Field(
        {}, description="tables whose questions and images must not be trained on"
    )
    parameters: FactsParameters = FactsParameters()


STAGE = Stage(
    name=NAME,
    module="pipelines.facts",
    spec_type=FactsSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.facts.run:run"),
    resumable=True,
    summary="Find out each pair's language, length, repetition, near-duplicates and benchmark overlap.",
)
