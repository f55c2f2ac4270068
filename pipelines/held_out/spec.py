"""The spec of the held-out captions: how many, of which shards, in which languages."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pipelines.declaration import InputTable, Stage, lazy
from pipelines.translate.spec import (
    Decoding,
    GuardLimits,
    Language,
    LeastBleu,
    TestScores,
    TranslatingSpec,
    reach,
)

NAME = "held_out_captions"
CODE_VERSION = "1"


class HeldOutParameters(BaseModel):
    """Which captions are held out, and how they are translated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    captions: int = Field(24, ge=1, description="at most; and at most a tenth of the shards' samples")
    source_language: Language = "en"
    target_languages: list[Language] = Field(["zh"], min_length=1)
    seed: int = 0
    guard: GuardLimits = GuardLimits()
    decoding: Decoding = Decoding()
    least_bleu: LeastBleu = Field({}, description="by language pair; a worse translator is not used")


class HeldOutSpec(TranslatingSpec):
    """Hold captions out, and translate them."""

    shards: InputTable = Field(description="training shards with captions in the source language")
    translator: InputTable = Field(description="the table foundations/translator")
    test_scores: TestScores = Field([], description="its scores on test sets, which the gate reads")
    parameters: HeldOutParameters = HeldOutParameters()


STAGE = Stage(
    name=NAME,
    module="pipelines.held_out",
    spec_type=HeldOutSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.held_out.run:run"),
    summary="Hold a few captions out of pretraining, and translate them, for the pivot gap.",
    resumable=True,
    reach=lambda spec: reach(spec.translator),
)
