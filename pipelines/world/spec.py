"""The world stage's spec: how large the world is, and which languages it speaks."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pipelines.crawls import CRAWL_PATTERN, LANGUAGE_PATTERN
from pipelines.stage import Stage, StageSpec, lazy

NAME = "world"
CODE_VERSION = "4"
LICENSE = "CC0-1.0"
"""Of all that the world makes up."""


class WorldParameters(BaseModel):
    """The world: its web, the texts and images that models are made from, and its benchmarks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(1, description="every table of the world is a function of it")
    languages: list[str] = Field(["en", "zh"], min_length=1, description="languages with a grammar table")
    pivot_language: str = Field("en", pattern=LANGUAGE_PATTERN, description="of captions and instructions")
    port: int = Field(
        8741, ge=1024, le=65535, description="of the world's web server on 127.0.0.1; stands in every URL"
    )
    pages: int = Field(6000, ge=40, description="images on the world's web, faulty ones included")
    crawl: str = Field("week-1", pattern=CRAWL_PATTERN, description="name of the world's first crawl")
    crawl_rows: int = Field(4500, ge=40, description="rows of its URL list")
    sentences: int = Field(16000, ge=1, description="parallel sentences for training")
    held_out_sentences: int = Field(300, ge=1, description="parallel sentences for scoring translation")
    documents: int = Field(12000, ge=1, description="conversations about described scenes, text only")
    reference_pairs: int = Field(6000, ge=1, description="clean image-text pairs for contrastive training")
    instructions: int = Field(6000, ge=1, description="questions with answers about images, pivot language")
    mmmb_items: int = Field(160, ge=4, description="held-out questions with four options")
    open_items: int = Field(200, ge=5, description="held-out open questions")


class WorldSpec(StageSpec):
    """What `python -m pipelines.world` is told."""

    parameters: WorldParameters = WorldParameters()


STAGE = Stage(
    name=NAME,
    module="pipelines.world",
    spec_type=WorldSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.world.make:run"),
    summary="Make the procedural world: a faulty web with a crawl, training texts and pairs, and benchmarks.",
)
