"""The spec of the stage that fetches a benchmark's published files."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.declaration import Reach
from pipelines.stage import Execution, InputFile, Stage, lazy
from pipelines.translate.spec import Decoding, GuardLimits, TranslatingSpec, reach

NAME = "benchmark_files"
CODE_VERSION = "1"


class Published(BaseModel):
    """A file on the web."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(pattern=r"^(https?|s3)://", description="where it is published")
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="its digest; without one, what came first is held to"
    )


class BenchmarkFilesSpec(TranslatingSpec):
    """What `python -m pipelines.benchmark_files` is told. Files go by the names that the benchmark reads."""

    benchmark: str = Field(description="a benchmark's name, such as mmmb")
    files: dict[str, InputFile] = Field({}, description="name, such as mmmb_en.tsv -> a file on this machine")
    urls: dict[str, Published] = Field({}, description="name -> a file on the web")
    images: InputFile | None = Field(
        None, description="a folder with the images that the files name; not for files that hold their images"
    )
    translate_into: list[str] = Field([], description="further languages, put there by the translator")
    guard: GuardLimits = GuardLimits()
    decoding: Decoding = Decoding()
    seconds: Annotated[float, Execution] = Field(
        120.0, gt=0, description="longest wait for a file's next bytes, in each of several attempts"
    )

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if not self.files and not self.urls:
            raise ValueError("give `files` or `urls`")
        if twice := sorted(self.files.keys() & self.urls.keys()):
            raise ValueError(f"both a file and a url for {', '.join(twice)}")
        if self.translate_into and self.translator is None:
            raise ValueError("`translate_into` needs a `translator`")
        return self

    def files_of(self, folder: str) -> list[str] | None:
        """The images that the files name: the folder is often a whole data set's, of which a benchmark shows little.

        Of files on the web it is not known what they name before they are fetched: with such, the whole folder counts.
        """
        from pipelines.benchmark_files.images import named_images  # loads the benchmarks' readers

        return named_images(self) if folder == "images" else None


def _reach(spec: BenchmarkFilesSpec) -> Reach:
    translating = reach(spec.translator) if spec.translate_into else "store"
    return "web" if translating == "store" and spec.urls else translating


STAGE = Stage(
    name=NAME,
    module="pipelines.benchmark_files",
    spec_type=BenchmarkFilesSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.benchmark_files.run:run"),
    summary="Fetch a benchmark's published files, check their digests and columns, and pack the images they name.",
    reach=_reach,
)
