"""A crawl and its manifest: the YAML file with which new data enters the factory."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pipelines.documents import load_document, validated
from pipelines.errors import BadInput

LANGUAGE_PATTERN = r"^[a-z]{2,3}$"
CRAWL_PATTERN = r"^[a-z0-9][a-z0-9-]{0,39}$"
"""A crawl's name becomes a partition key, a folder and part of a job's name."""


class Columns(BaseModel):
    """Which columns of the URL list hold what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = "url"
    caption: str = "caption"


class CrawlManifest(BaseModel):
    """Names a list of image URLs with captions, in one language."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    crawl: str = Field(pattern=CRAWL_PATTERN, description="name of the crawl, and of its partition")
    language: str = Field(pattern=LANGUAGE_PATTERN, description="ISO 639 code of the captions' language")
    files: list[Path] = Field(min_length=1, description="parquet URL lists, relative to the manifest")
    columns: Columns = Columns()
    license: str = Field("unknown", description="license of the URL list")
    source: str = Field("", description="where the list comes from: a URL or a citation")
    allow_loopback: bool = Field(
        False,
        description="whether 127.0.0.1 may be fetched from; only for a crawl that is served on this machine",
    )
    world: Path | None = Field(
        None, description="a world table whose web server is started while this crawl is downloaded"
    )


def read_manifest(path: Path) -> CrawlManifest:
    """The crawl manifest in a YAML file, its relative paths made absolute.

    Raises:
        BadInput: the file is missing or malformed, or names a URL list that does not exist.
    """
    read = validated(CrawlManifest, load_document(path), where=path)
    folder = path.resolve().parent
    files = [folder / file for file in read.files]
    for file in files:
        if not file.is_file():
            raise BadInput(f"the URL list {file} does not exist", where=path, remedy="correct `files`")
    world = None if read.world is None else folder / read.world
    return read.model_copy(update={"files": files, "world": world})
