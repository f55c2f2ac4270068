"""The spec of a translation benchmark: which published files, pinned by their digests, and by which translator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.crawls import LANGUAGE_PATTERN
from pipelines.declaration import Execution, InputFile, InputTable, Reach, Stage, lazy
from pipelines.translate.spec import Decoding, GuardLimits, TranslatingSpec, reach

NAME = "translation_benchmark"
CODE_VERSION = "1"
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,39}$"

Language = Annotated[str, Field(pattern=LANGUAGE_PATTERN)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class TestSet(BaseModel):
    """A published test set. WMT's are .sgm files; text files have a segment per line."""

    __test__ = False  # pytest takes it for a class of tests

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=NAME_PATTERN, description="such as wmt17")
    source_language: Language = "en"
    target_language: Language = "zh"
    source: str = Field(description="path or http(s) address of what is translated")
    reference: str = Field(description="path or http(s) address of what a person made of it")
    source_sha256: Digest | None = Field(None, description="pins the source; an address must be pinned")
    reference_sha256: Digest | None = Field(None, description="pins the reference; an address must be pinned")
    gates: Annotated[bool, Execution] = Field(
        True,
        description="whether `least_bleu` of its pair holds the translator to it; false: it is scored for a look",
    )

    @model_validator(mode="after")
    def _addresses_are_pinned(self) -> Self:
        for name in ("source", "reference"):
            place = getattr(self, name)
            if "://" in place and not place.startswith(("http://", "https://")):
                raise ValueError(f"`{name}` is neither a path nor an http(s) address")
            if "://" in place and getattr(self, f"{name}_sha256") is None:
                raise ValueError(f"`{name}` is an address: pin what it gives by `{name}_sha256`")
        return self

    @property
    def pair(self) -> str:
        return f"{self.source_language}-{self.target_language}"

    def files(self) -> dict[str, Path]:
        """Those of the two that lie on this machine."""
        places = {"source": self.source, "reference": self.reference}
        return {name: Path(place) for name, place in places.items() if "://" not in place}


class TranslationBenchmarkSpec(TranslatingSpec):
    """Translate a published test set and score it by BLEU and chrF."""

    test_set: TestSet
    files: dict[str, InputFile] = Field({}, description="set by the test set's paths: their content counts")
    translator: InputTable = Field(description="the table foundations/translator")
    guard: GuardLimits = GuardLimits()
    decoding: Decoding = Field(Decoding(beam_size=5), description="papers score with a beam; M2M-100's is 5")

    @model_validator(mode="after")
    def _files_of_the_test_set(self) -> Self:
        # Marked as inputs, so that other content under an unchanged path is noticed.
        if self.files != self.test_set.files():
            object.__setattr__(self, "files", self.test_set.files())
        return self


def _reach(spec: TranslationBenchmarkSpec) -> Reach:
    translating = reach(spec.translator)
    fetched = "://" in spec.test_set.source + spec.test_set.reference
    return "web" if translating == "store" and fetched else translating


STAGE = Stage(
    name=NAME,
    module="pipelines.translation_benchmark",
    spec_type=TranslationBenchmarkSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.translation_benchmark.run:run"),
    summary="Score the translator on a published test set, such as WMT17 into Chinese.",
    resumable=True,
    reach=_reach,
)
