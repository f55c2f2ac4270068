"""The spec of the translation stage: which pairs, into which languages, and what the guard lets pass."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipelines.crawls import LANGUAGE_PATTERN
from pipelines.declaration import Execution, InputTable, Reach, Stage, StageSpec, lazy
from pipelines.lake import manifest
from pipelines.remote.spec import Conduct, Server

NAME = "translations"
CODE_VERSION = "1"
DROPPED_FILE = "dropped.parquet"
"""Stands in the table beside the languages' files."""
SERVER_FILE = "server.json"
"""In a translator table: the server that translates, without its key."""
PAIR_PATTERN = r"^[a-z]{2,3}-[a-z]{2,3}$"

Language = Annotated[str, Field(pattern=LANGUAGE_PATTERN)]


Device = Literal["auto", "cpu", "cuda"]
DEVICES = "auto: a GPU if this machine has one; one that CTranslate2 cannot use is an error"


class GuardLimits(BaseModel):
    """What a translation must keep to. Lengths are bytes of UTF-8, which differ less between scripts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    most_repetitions: int = Field(
        3,
        ge=1,
        description="times that a phrase may stand in direct succession, unless the source does so too",
    )
    least_length_ratio: float = Field(0.25, ge=0, description="length of the output / length of the source")
    most_length_ratio: float = Field(4.0, gt=0, description="length of the output / length of the source")
    length_slack: int = Field(
        12, ge=0, description="bytes by which the ratio may be missed: one word is no sentence"
    )
    least_script_share: float = Field(
        0.5, ge=0, le=1, description="share of the output's letters in the target language's script"
    )


class Decoding(BaseModel):
    """How the model searches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    beam_size: int = Field(1, ge=1, description="1 is greedy")
    max_batch_tokens: int = Field(4096, ge=1, description="padded source tokens per batch")
    max_output_tokens: int = Field(256, ge=1, description="an output that is not done by then is cut off")


class RemoteTranslation(BaseModel):
    """A language model behind a server that translates: CPM-Bee's role in the MpM paper."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    server: Server
    prompt: str = Field(
        "Translate the following {source} text into {target}. Keep numbers, names and line breaks as they "
        "are. Write the translation and nothing else.\n\n{text}",
        description="what is asked, with {source}, {target} and {text} in it",
    )
    languages: list[Language] = Field(
        [], description="target languages that go to the server, the others to the weights; none named: all"
    )

    @field_validator("prompt")
    @classmethod
    def _has_its_places(cls, value: str) -> str:
        if lacking := [place for place in ("{target}", "{text}") if place not in value]:
            raise ValueError(f"the prompt lacks {', '.join(lacking)}")
        return value


def reach(translator: Path | None) -> Reach:
    """What a stage opens connections to that translates by this table.

    Raises:
        BadInput: the table does not exist yet.
    """
    files = [] if translator is None else manifest.read(translator).files
    return "servers" if any(Path(file.path).name == SERVER_FILE for file in files) else "store"


LeastBleu = dict[Annotated[str, Field(pattern=PAIR_PATTERN)], float]
"""By language pair, such as "en-zh": the least BLEU on held-out sentences with which anything is translated."""


TestScores = Annotated[list[Path], Execution]
"""Tables `translation_benchmark` of the translator, which `least_bleu` holds it to besides its own held-out sentences.

A gate lets through or not; it changes no translation.
"""


class TranslateParameters(BaseModel):
    """The `translate` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_languages: list[Language] = Field(["zh"], min_length=1, description="languages to translate into")
    guard: GuardLimits = GuardLimits()
    decoding: Decoding = Decoding()
    least_bleu: LeastBleu = Field({}, description="by language pair; a worse translator is not used")
    captions_per_chunk: int = Field(
        50_000, ge=1, description="captions that are held in memory, and lost at most when the run is killed"
    )


class TranslatingSpec(StageSpec):
    """Common to the stages that translate."""

    translator: InputTable | None = Field(None, description="the table foundations/translator")
    device: Annotated[Device, Execution] = Field("auto", description=DEVICES)
    threads: Annotated[int | None, Execution] = Field(
        None, ge=1, description="CPU threads of the translator; none: one per core"
    )
    cache: Annotated[Path | None, Execution] = Field(
        None,
        description="folder of kept translations, for all tables; none: kept for this table's reruns only",
    )
    conduct: Annotated[Conduct, Execution] = Field(Conduct(), description="how a translating server is asked")


class TranslateSpec(TranslatingSpec):
    """Translate the captions of a crawl's kept pairs."""

    raw_pairs: InputTable = Field(description="where the captions stand")
    filtered_pairs: InputTable = Field(description="which pairs were kept")
    translator: InputTable = Field(description="the table foundations/translator")
    test_scores: TestScores = Field([], description="its scores on test sets, which the gate reads")
    parameters: TranslateParameters = TranslateParameters()


STAGE = Stage(
    name=NAME,
    module="pipelines.translate",
    spec_type=TranslateSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.translate.captions:run"),
    summary="Translate the captions of the kept pairs into the target languages, guarded.",
    resumable=True,
    reach=lambda spec: reach(spec.translator),
    estimate=lazy("pipelines.translate.estimate:estimate"),
)
