"""What the download stage is told, and its declaration."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.crawls import CrawlManifest, read_manifest
from pipelines.download.fetched import beside
from pipelines.stage import Execution, InputFile, InputTable, Stage, StageSpec, lazy

NAME = "raw_pairs"
CODE_VERSION = "7"


class DownloadParameters(BaseModel):
    """What is fetched and what is refused: the `download` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows_per_shard: int = Field(10_000, ge=1, description="rows of the URL list per shard")
    timeout_seconds: float = Field(10.0, gt=0, description="limit of one socket operation")
    total_seconds: float = Field(
        30.0, gt=0, description="limit of one URL, redirects and retries included, waiting for one's turn not"
    )
    max_bytes: int = Field(20_000_000, ge=1, description="limit of an image file")
    max_pixels: int = Field(50_000_000, ge=1, description="limit of width x height, checked before decoding")
    min_side: int = Field(16, ge=1, description="least width and height, in pixels")
    max_aspect_ratio: float = Field(10.0, ge=1, description="limit of longer side / shorter side")
    max_redirects: int = Field(5, ge=0, description="redirects followed; each hop is checked anew")
    retries: int = Field(
        2,
        ge=0,
        le=10,
        description="further tries after what may pass: a timeout, a reset, 408, 425, 429, 5xx; Retry-After is kept to",
    )
    wait_seconds: float = Field(
        300.0, ge=0, description="how long a shard waits at its end for hosts that asked to be left alone (Retry-After)"
    )  # fmt: skip
    outage_seconds: Annotated[float, Execution] = Field(
        120.0, ge=0, description="after so long without any host reached the run stops, to go on when run again; 0: never"
    )  # fmt: skip
    attempt: int = Field(
        0, ge=0, description="raised, only the rows of the published table are downloaded again that failed for a passing reason"
    )  # fmt: skip
    user_agent: str = Field(
        "mpm-download/1.0 (image-text research crawl)", min_length=1, pattern=r"^[\x20-\x7e]+$",
        description="sent with each request; sites make rules for the name that it begins with",
    )  # fmt: skip
    contact: Annotated[str, Execution] = Field(
        "", pattern=r"^[\x20-\x7e]*$", description="an address at which you can be reached; sent behind the user agent"
    )  # fmt: skip
    robots_txt: bool = Field(
        True, description="whether robots.txt is asked before a site's first image; one more fetch per site"
    )
    connections_per_host: Annotated[int, Execution] = Field(
        8, ge=0, le=64, description="to one host at once, over all processes; 0: no limit, as on loopback"
    )
    allowed_ports: list[int] = Field([80, 443], min_length=1, description="ports that may be connected to")


class DownloadSpec(StageSpec):
    """One crawl to take in. What its manifest names is filled in: all fields up to `world`."""

    crawl: InputFile = Field(description="the crawl's manifest")
    files: list[InputFile] = Field(description="the source's files")
    beside: list[InputFile] = Field(
        [], description="what a reader finds beside these: the instructions of M3IT's tasks"
    )
    archives: list[InputFile] = Field([], description="the archives that hold the images")
    listing: str = Field("", description="digest of the names, sizes and times of all files in image folders")
    world: InputTable | None = Field(
        None, description="the manifest's world, whose web server is run meanwhile"
    )
    takedown: Annotated[Path | None, Execution] = Field(
        None,
        description="the takedown list: what it names when the download begins is not fetched. The table that was made stays "
        "when the list grows; the filter drops the rest",
    )
    parameters: DownloadParameters = DownloadParameters()
    workers: Annotated[int | None, Execution] = Field(
        None, ge=1, description="processes; none: one per core, and at most 16"
    )
    threads_per_worker: Annotated[int, Execution] = Field(
        24, ge=1, description="simultaneous fetches per process"
    )

    @model_validator(mode="before")
    @classmethod
    def _inputs_of_the_manifest(cls, document: Any) -> Any:
        """Make the source's files inputs of their own, so that a changed list is a changed input."""
        if not isinstance(document, dict) or "crawl" not in document or "files" in document:
            return document
        return {**document, **inputs(read_manifest(Path(document["crawl"])))}


def inputs(manifest: CrawlManifest) -> dict[str, Any]:
    """The fields of a `DownloadSpec` that the manifest decides."""
    images = manifest.images.files if manifest.images else []
    folders = [path for path in [*manifest.files, *images] if path.is_dir()]
    return {
        "files": [path for path in manifest.files if not path.is_dir()],
        "beside": beside(manifest),
        "archives": [path for path in images if not path.is_dir()],
        "listing": _listing(folders) if folders else "",
        "world": manifest.world,
    }


def _listing(folders: list[Path]) -> str:
    """Reading every image to see whether one changed would cost as much as the work itself."""
    digest = hashlib.sha256()
    for root in folders:
        for folder, subfolders, names in os.walk(root):
            subfolders.sort()
            for name in sorted(names):
                path = Path(folder) / name
                status = path.stat()
                line = f"{path.relative_to(root)}\0{status.st_size}\0{status.st_mtime_ns}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def spec_for(
    crawl: Path,
    parameters: DownloadParameters,
    output: Path,
    *,
    takedown: Path | None = None,
    **execution: int,
) -> DownloadSpec:
    """The spec that downloads the crawl whose manifest is at `crawl`.

    `takedown`: the table of what must not be fetched. `execution` holds `workers` and `threads_per_worker`.

    Raises:
        BadInput: the manifest is missing or malformed, or names a file that does not exist.
    """
    document = {
        "crawl": crawl, "parameters": parameters, "output": output, "takedown": takedown, **execution,
    }  # fmt: skip
    return DownloadSpec.model_validate(document)


STAGE = Stage(
    name=NAME,
    module="pipelines.download",
    spec_type=DownloadSpec,
    code_version=CODE_VERSION,
    run=lazy("pipelines.download.run:run"),
    summary="Take in a crawl: download its images, or read them from disk, into webdataset tars.",
    resumable=True,
    reach=lambda _: "web",
)
