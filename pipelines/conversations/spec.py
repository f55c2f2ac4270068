"""The spec of the translation of conversations: which files, by which translator, into which languages."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.crawls import LANGUAGE_PATTERN
from pipelines.declaration import InputFile, InputTable, Stage, lazy
from pipelines.translate.spec import Decoding, GuardLimits, LeastBleu, TestScores, TranslatingSpec, reach

NAME = "translated_conversations"
CODE_VERSION = "1"

Language = Annotated[str, Field(pattern=LANGUAGE_PATTERN)]


class ConversationParameters(BaseModel):
    """How conversations are translated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source_language: Language = "en"
    target_languages: list[Language] = Field(["zh"], min_length=1)
    sentences: bool = Field(
        True,
        description="translate sentence by sentence, as M2M-100 was trained; false: line by line, for a server",
    )
    guard: GuardLimits = GuardLimits()
    decoding: Decoding = Decoding()
    least_bleu: LeastBleu = Field({}, description="by language pair; a worse translator is not used")
    conversations_per_chunk: int = Field(
        2000, ge=1, description="held in memory, and lost at most when the run is killed"
    )


class ConversationSpec(TranslatingSpec):
    """Translate conversations in LLaVA's format, or those of a crawl."""

    conversations: InputFile | None = Field(
        None, description="JSON list or JSON lines, as LLaVA-Instruct-150K"
    )
    corpus: InputTable | None = Field(
        None, description="instead: the raw_pairs table of a conversation crawl; entries are named by uid"
    )
    filtered: InputTable | None = Field(
        None, description="its filtered_pairs: only what the filter kept is translated; none: all"
    )
    translator: InputTable = Field(description="the table foundations/translator")
    test_scores: TestScores = Field([], description="its scores on test sets, which the gate reads")
    parameters: ConversationParameters = ConversationParameters()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.conversations is None) == (self.corpus is None):
            raise ValueError("name `conversations`, a file, or `corpus`, a table")
        if self.filtered is not None and self.corpus is None:
            raise ValueError("`filtered` is of a `corpus`")
        return self


STAGE = Stage(
    name=NAME,
    module="pipelines.conversations",
    spec_type=ConversationSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.conversations.run:run"),
    summary="Translate instruction data turn by turn; placeholders, option letters and numbers stay.",
    resumable=True,
    reach=lambda spec: reach(spec.translator),
)
