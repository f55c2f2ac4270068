"""A crawl and its manifest: the YAML file with which new data enters the factory.

A crawl is a list of image URLs, or a data set that already lies on disk. Ready manifests of well-known
corpora stand in `recipes/crawls/`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.documents import load_document, validated
from pipelines.errors import BadInput
from pipelines.lake import location

LANGUAGE_PATTERN = r"^[a-z]{2,3}$"
CRAWL_PATTERN = r"^[a-z0-9][a-z0-9-]{0,39}$"
"""A crawl's name becomes a partition key, a folder and part of a job's name."""

Format = Literal[
    "parquet", "csv", "tsv", "jsonl", "coco", "visual_genome", "llava", "unimm_chat", "m3it", "webdataset",
    "folder",
]  # fmt: skip
Records = Literal["pairs", "conversations"]

_CONVERSATIONAL = frozenset({"llava", "unimm_chat", "m3it"})
_OWN_IMAGES = frozenset({"unimm_chat", "m3it", "webdataset", "folder"})
"""Formats whose files hold the images themselves."""


class Columns(BaseModel):
    """Which columns (in JSON: keys) hold what; a format looks at those that it has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field("url", description="an image's URL; with `images`, its name there")
    caption: str = Field(
        "caption", description="of csv, tsv, parquet, jsonl; of webdataset: a member's ending"
    )
    image: str = Field("image", description="of llava: an image's name; of the others: its bytes")
    image_name: str = Field("image_path", description="of unimm_chat: an image's name, for its identity")
    conversation: str = Field("conversations", description="of llava and unimm_chat: the turns")
    question: str = Field("inputs", description="of m3it")
    instruction: str = Field("instruction", description="of m3it: what stands before the question")
    answer: str = Field("outputs", description="of m3it")


class Images(BaseModel):
    """Where the images are that a source names: in local folders and archives, or below a URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: list[Path] = Field(
        [], description="folders, zip and tar files; the first that has an image gives it"
    )
    prefix: str = Field("", description="put before each name, such as train2017/")
    url_prefix: str = Field(
        "", description="the images' address on the web: fetched from there without `files`, and recorded"
    )

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not self.files and not self.url_prefix:
            raise ValueError("name local `files`, or a `url_prefix` to fetch from")
        return self


class CrawlManifest(BaseModel):
    """Names image-text data in one language: URL lists, or data sets on disk."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    crawl: str = Field(pattern=CRAWL_PATTERN, description="name of the crawl, and of its partition")
    language: str = Field(pattern=LANGUAGE_PATTERN, description="ISO 639 code of the texts' language")
    files: list[Path] = Field(
        min_length=1,
        description="the source's files, with * and ?; relative to `root`, or s3://; a folder for `folder`",
    )
    root: Path | None = Field(None, description="where `files` and `images` are; else beside the manifest")
    format: Format = "parquet"
    records: Records | None = Field(
        None, description="what a row is; llava and m3it hold conversations unless this says pairs"
    )
    columns: Columns = Columns()
    header: list[str] | None = Field(None, description="of csv and tsv without a header line: their columns")
    images: Images | None = Field(None, description="where images named by the source are; else it has URLs")
    rows: int | None = Field(
        None, ge=1,
        description="take in a slice of so many rows, first by the hash of their identity: always the same ones, and of a "
        "larger slice a part; none: all",
    )  # fmt: skip
    captions_per_image: int | None = Field(
        None, ge=1, description="of coco: the first; of visual_genome: those of the largest regions"
    )
    license: str = Field("unknown", description="license of the list and of the texts")
    source: str = Field("", description="where the data comes from: a URL")
    citation: str = Field("", description="the paper to cite")
    notes: str = Field("", description="what a reader of the data should know")
    allow_loopback: bool = Field(
        False,
        description="whether 127.0.0.1 may be fetched from; only for a crawl that is served on this machine",
    )
    world: Path | None = Field(
        None, description="a world table whose web server is started while this crawl is downloaded"
    )

    @property
    def kind(self) -> Records:
        """What a row of the table will be."""
        return self.records or ("conversations" if self.format in _CONVERSATIONAL else "pairs")

    @property
    def local_images(self) -> bool:
        """Whether the images are on disk, so that nothing is fetched."""
        return self.format in _OWN_IMAGES or bool(self.images and self.images.files)

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if self.kind == "conversations" and self.format not in _CONVERSATIONAL:
            raise ValueError(
                f"`records: conversations` needs a format of {', '.join(sorted(_CONVERSATIONAL))}"
            )
        if self.header is not None and self.format not in ("csv", "tsv"):
            raise ValueError("`header` names the columns of csv and tsv files only")
        if self.format in _OWN_IMAGES and self.images is not None:
            raise ValueError(f"files of the format {self.format!r} hold their images: leave `images` out")
        if self.format == "llava" and self.images is None:
            raise ValueError("`llava` names images: say in `images` where they are")
        if self.captions_per_image is not None and self.format not in ("coco", "visual_genome"):
            raise ValueError("`captions_per_image` is for coco and visual_genome")
        if self.format == "visual_genome" and len(self.files) != 2:
            raise ValueError("visual_genome has two files: region_descriptions.json, image_data.json")
        return self


def read_manifest(path: Path) -> CrawlManifest:
    """The crawl manifest in a YAML file: its paths made absolute, `*` and `?` in `files` expanded.

    Raises:
        BadInput: the file is missing or malformed, or names a file that does not exist.
    """
    read = validated(CrawlManifest, load_document(path), where=path)
    folder = location.absolute(path).parent
    root = folder if read.root is None else _below(folder, read.root)
    found = [file for pattern in read.files for file in _expanded(read, _below(root, pattern), path)]
    images = read.images
    if images is not None:
        images = images.model_copy(
            update={"files": [_image_files(_below(root, file), read, path) for file in images.files]}
        )
    world = None if read.world is None else _below(folder, read.world)
    return read.model_copy(update={"files": found, "root": None, "images": images, "world": world})


def _below(folder: Path, path: Path) -> Path:
    return path if location.is_remote(path) else folder / path


def _expanded(manifest: CrawlManifest, pattern: Path, path: Path) -> list[Path]:
    """The files that a pattern stands for; shard 10 after shard 9."""
    remote = location.is_remote(pattern)
    if remote and manifest.format == "folder":
        raise _no_remote_folder(pattern, path)
    if "*" in str(pattern) or "?" in str(pattern):
        if remote:
            found = sorted(location.matching(pattern), key=_natural)
        else:
            found = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))), key=_natural)
    else:
        there = location.is_file(pattern) if remote else pattern.exists()
        found = [pattern] if there else []
    if not found:
        raise BadInput(
            f"{location.url(pattern)} does not exist", where=path,
            remedy=f"correct `files`, or set `root` to the folder that has them{_from_source(manifest)}",
        )  # fmt: skip
    for file in found:
        if file.is_dir() != (manifest.format == "folder"):
            raise BadInput(
                f"{file} is {'a folder' if file.is_dir() else 'no folder'}", where=path,
                remedy="correct `files`: folders for `format: folder`, files for all others",
            )  # fmt: skip
    return found


def _no_remote_folder(folder: Path, path: Path) -> BadInput:
    return BadInput(
        f"{location.url(folder)} is a folder of images in an object store, which is not read file by file",
        where=path,
        remedy="put the images into zip or tar files there, and name these; or copy the folder to this machine",
    )


def _image_files(file: Path, manifest: CrawlManifest, path: Path) -> Path:
    if location.is_remote(file):
        if not location.is_file(file) and location.listing(file):
            raise _no_remote_folder(file, path)
        there = location.is_file(file)
    else:
        there = file.exists()
    if not there:
        without = "; or leave `images.files` out to fetch each image by its URL" if manifest.images and (
            manifest.images.url_prefix or manifest.format == "coco") else ""  # fmt: skip
        raise BadInput(
            f"the images {location.url(file)} do not exist", where=path,
            remedy=f"correct `images.files` or `root`{without}{_from_source(manifest)}",
        )  # fmt: skip
    return file


def _from_source(manifest: CrawlManifest) -> str:
    return f"; the files come from {manifest.source}" if manifest.source else ""


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]
