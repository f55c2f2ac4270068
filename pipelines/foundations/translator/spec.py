"""The spec of the translator: where its weights come from, and how a small one is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.crawls import LANGUAGE_PATTERN
from pipelines.declaration import TORCH, Execution, InputTable, Stage, StageSpec, lazy
from pipelines.remote.spec import Conduct
from pipelines.translate.spec import RemoteTranslation

NAME = "foundations/translator"
CODE_VERSION = "1"

Language = Annotated[str, Field(pattern=LANGUAGE_PATTERN)]


class TranslatorShape(BaseModel):
    """Sizes of the small M2M-100."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(128, ge=8, description="of the embeddings and of every layer")
    layers: int = Field(2, ge=1, description="of the encoder, and of the decoder")
    heads: int = Field(4, ge=1)
    feed_forward: int = Field(256, ge=8)
    vocabulary: int = Field(256, ge=16, description="sentencepiece pieces, all languages together")


class TranslatorTraining(BaseModel):
    """How the small M2M-100 is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    steps: int = Field(300, ge=1, description="add as many for every further direction")
    batch: int = Field(64, ge=1, description="sentence pairs a step")
    learning_rate: float = Field(3e-3, gt=0)
    warmup_steps: int = Field(30, ge=0)
    gradient_clip: float = Field(1.0, gt=0)


class TranslatorParameters(BaseModel):
    """The `translator` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: str | None = Field(
        None, description="an M2M-100 in transformers' format: folder or hub id; none: trained here"
    )
    sha256: str | None = Field(None, description="pins the content of `weights`")
    server: RemoteTranslation | None = Field(
        None, description="a language model behind a server, for all target languages or for those it names"
    )
    pivot_language: Language = "en"
    target_languages: list[Language] = Field(["zh"], min_length=1)
    both_directions: bool = Field(False, description="train from the target languages into the pivot too")
    quantization: Literal["int8", "int8_float16", "float16", "bfloat16", "float32"] = Field(
        "int8", description="of the converted weights"
    )
    shape: TranslatorShape = TranslatorShape()
    training: TranslatorTraining = TranslatorTraining()

    @property
    def local_languages(self) -> list[str]:
        """The target languages that M2M-100 translates into."""
        if self.server is None:
            return list(self.target_languages)
        served = self.server.languages or self.target_languages
        return [language for language in self.target_languages if language not in served]


class TranslatorSpec(StageSpec):
    """Make the translator, and score it on the held-out sentences of the world, if there is one."""

    world: InputTable | None = Field(None, description="needed where neither weights nor a server are given")
    parameters: TranslatorParameters = TranslatorParameters()
    threads: Annotated[int, Execution] = Field(
        1,
        ge=1,
        description="CPU threads; more gain little on so small a network, and lose much on a busy machine",
    )
    cache: Annotated[Path | None, Execution] = Field(None, description="folder of a server's kept answers")
    conduct: Annotated[Conduct, Execution] = Field(Conduct(), description="how a server is asked")

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.world is None and self.parameters.weights is None and self.parameters.local_languages:
            raise ValueError("give `world`, to train on, or `parameters.weights`, or `parameters.server`")
        return self


STAGE = Stage(
    name=NAME,
    module="pipelines.foundations.translator",
    spec_type=TranslatorSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.foundations.translator.make:run"),
    imports=TORCH,
    reach=lambda spec: "store" if spec.parameters.server is None else "servers",
    summary="Make the translator: train a small M2M-100 or take weights, convert to CTranslate2, score by BLEU.",
)
