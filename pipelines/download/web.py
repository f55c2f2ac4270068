"""Fetches the images of a shard that are on the web: img2dataset's Downloader, behind the guard.

Only `img2dataset.downloader` is imported. Its package imports webdataset (and with it torch),
albumentations (which asks the network for its version) and a signal handler's module; its logger
imports wandb, which nothing here uses.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
import types
import urllib.request
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from pipelines.download.image import image_size
from pipelines.download.reasons import Failure, parse
from pipelines.download.source import ShardRow
from pipelines.download.spec import DownloadParameters
from pipelines.download.suspects import Suspects, named
from pipelines.download.writer import ShardWriter


def contained_downloader() -> type:
    """img2dataset's Downloader, without what its package imports besides."""
    found = importlib.util.find_spec("img2dataset")
    if found is None or found.submodule_search_locations is None:
        raise ModuleNotFoundError("img2dataset is not installed", name="img2dataset")
    package = types.ModuleType("img2dataset")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["img2dataset"] = package
    sys.modules.setdefault("wandb", types.ModuleType("wandb"))
    # Arrow imports pandas for its first array, which takes a second. It leaves a version this old alone.
    pandas = types.ModuleType("pandas")
    pandas.__dict__["__version__"] = "0.0"
    sys.modules.setdefault("pandas", pandas)
    downloader: type = importlib.import_module("img2dataset.downloader").Downloader
    return downloader


def fetch(
    downloader_type: type,
    groups: Sequence[Sequence[ShardRow]],
    writer: ShardWriter,
    parameters: DownloadParameters,
    suspects: Suspects,
    *,
    threads: int,
    folder: Path,
) -> None:
    """Fetch one image per group of rows, which share its URL, and hand them to the writer.

    Each is noted in `suspects` while it is decoded.

    Raises:
        OSError: the writer could not write.
    """
    ordered = interleaved(groups)
    table = pa.table({"group": range(len(ordered)), "url": [group[0].url for group in ordered]})
    rows = folder / "rows.arrow"
    with pa.OSFile(str(rows), "wb") as stream, pa.ipc.new_file(stream, table.schema) as target:
        target.write_table(table)
    adapter = _Adapter(ordered, writer, parameters, suspects)
    downloader = downloader_type(
        sample_writer_class=adapter,
        resizer=_as_it_came,
        thread_count=threads,
        save_caption=False,
        extract_exif=False,
        output_folder=str(folder),
        column_list=table.column_names,
        timeout=parameters.timeout_seconds,
        number_sample_per_shard=parameters.rows_per_shard,
        oom_shard_count=5,
        compute_hash=None,
        verify_hash_type=None,
        encode_format="jpg",
        retries=0,  # The guard retries, and only what can succeed.
        user_agent_token=None,
        disallowed_header_directives=None,  # The guard looks at them before the body is read.
    )
    downloader.download_shard((0, str(rows)))
    if adapter.error is not None:
        raise adapter.error


def requested(url: str) -> str:
    """The URL as urllib's request has it, which the opener gets."""
    return urllib.request.Request(url).full_url  # noqa: S310  # nothing is opened


def _as_it_came(image: BytesIO, _: None) -> tuple[bytes, None, None, None, None, None]:
    """For img2dataset's resizer, which is not told whose image it has: the writer looks at it, and changes no byte."""
    return image.getvalue(), None, None, None, None, None


def interleaved(groups: Sequence[Sequence[ShardRow]]) -> list[Sequence[ShardRow]]:
    """The groups so that URLs of one host stand far apart: lists are often sorted by host, and none likes a burst."""
    by_host: dict[str, list[Sequence[ShardRow]]] = {}
    for group in groups:
        by_host.setdefault(urlsplit(group[0].url).netloc, []).append(group)
    rounds = itertools.zip_longest(*by_host.values())
    return [group for together in rounds for group in together if group is not None]


class _Adapter:
    """What img2dataset takes for its writer's class and its writer. It swallows what `write` raises, so that is kept."""

    def __init__(
        self,
        groups: Sequence[Sequence[ShardRow]],
        writer: ShardWriter,
        limits: DownloadParameters,
        suspects: Suspects,
    ) -> None:
        self._groups, self._writer, self._limits, self._suspects = groups, writer, limits, suspects
        self.error: OSError | None = None

    def __call__(self, *_: object) -> _Adapter:
        return self

    def write(self, image: bytes | None, key: str, caption: str | None, meta: dict[str, Any]) -> None:
        """Take one row: an image, or an error message in `meta`."""
        group = self._groups[meta["group"]]
        if image is None:
            self._writer.drop(group, parse(meta["error_message"] or ""))
        elif self.error is None:
            try:
                with self._suspects.alone(named(requested(group[0].url))):
                    width, height = image_size(image, self._limits)
                self._writer.keep(group, image, width, height)
            except Failure as failure:
                self._writer.drop(group, failure)
            except OSError as error:
                self.error = error

    def close(self) -> None:
        """The writer is closed by whom it belongs to."""
