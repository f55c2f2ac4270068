"""The spec of an instruction mix: how much of it is in which languages."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.crawls import LANGUAGE_PATTERN
from pipelines.declaration import InputTable, Stage, lazy
from pipelines.translate.spec import Decoding, GuardLimits, LeastBleu, TestScores, TranslatingSpec, reach

NAME = "instruction_mix"
CODE_VERSION = "3"

Language = Annotated[str, Field(pattern=LANGUAGE_PATTERN)]


class InstructionParameters(BaseModel):
    """The `instructions` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the world's samples, and of each translated corpus's, that are translated; "
        "of any share above 0, at least one",
    )
    pivot_language: Language = "en"
    target_languages: list[Language] = Field(
        ["zh"], min_length=1, description="translated samples take turns in them"
    )
    seed: int = Field(0, description="of the choice of samples to translate")
    source: str = Field(
        "instructions", min_length=1, description="name of the data, written into every sample"
    )
    guard: GuardLimits = GuardLimits()
    decoding: Decoding = Decoding()
    least_bleu: LeastBleu = Field({}, description="by language pair; a worse translator is not used")
    samples_per_shard: int = Field(1000, ge=1)

    @model_validator(mode="after")
    def _targets_differ(self) -> Self:
        if self.pivot_language in self.target_languages or len(set(self.target_languages)) < len(
            self.target_languages
        ):
            raise ValueError("`target_languages` must differ from each other and from `pivot_language`")
        return self


class InstructionSpec(TranslatingSpec):
    """Blend a world's instructions with their translations, and instruction corpora with theirs."""

    world: InputTable | None = Field(
        None, description="where the world's instructions in the pivot language are"
    )
    corpora: dict[str, InputTable] = Field(
        {}, description="by name: raw_pairs tables of conversation crawls; each conversation is taken whole"
    )
    filtered: dict[str, InputTable] = Field(
        {}, description="by the name of a corpus: its filtered_pairs; without one, all of it is taken"
    )
    translations: dict[str, InputTable] = Field(
        {}, description="by the name of a corpus: the table translated_conversations made of it"
    )
    languages: dict[str, list[Language]] = Field(
        {}, description="by the name of a corpus: it is taken whole, in these languages, whatever the share"
    )
    test_scores: TestScores = Field([], description="its scores on test sets, which the gate reads")
    parameters: InstructionParameters = InstructionParameters()

    @model_validator(mode="after")
    def _sources(self) -> Self:
        if self.world is None and not self.corpora:
            raise ValueError("name a `world`, or `corpora`")
        for name in ("filtered", "translations", "languages"):
            if unknown := sorted(getattr(self, name).keys() - self.corpora.keys()):
                raise ValueError(f"`{name}` of {', '.join(unknown)}, which `corpora` does not name")
        return self


STAGE = Stage(
    name=NAME,
    module="pipelines.instructions",
    spec_type=InstructionSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.instructions.mix:run"),
    summary="Blend instructions in the pivot language with a set share of their translations.",
    resumable=True,
    reach=lambda spec: reach(spec.translator),
)
