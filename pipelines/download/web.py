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
import time
import types
import urllib.request
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from pipelines.download.guard import GuardedOpener
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


_Group = Sequence[ShardRow]
"""Rows that share one URL."""
_Later = tuple[_Group, Failure]
_OUTAGE_PAUSE_SECONDS = 10.0
_TOGETHER_SECONDS = 1.0
"""Hosts that may be asked again within so little time of each other are asked together."""


def fetch(
    downloader_type: type,
    opener: GuardedOpener,
    groups: Sequence[_Group],
    writer: ShardWriter,
    parameters: DownloadParameters,
    suspects: Suspects,
    *,
    threads: int,
    folder: Path,
) -> None:
    """Fetch one image per group of rows, which share its URL, and hand them to the writer.

    Each is noted in `suspects` while it is decoded. What may come later is tried again when the others are done: rows of hosts that
    asked to be left alone, when they may be asked again; and rows that did not leave this machine.

    Raises:
        NetworkDown: this machine reaches no host at all.
        OSError: the writer could not write.
    """
    hosts, patience = opener.hosts, parameters.wait_seconds
    waiting, asked = list(groups), list[_Later]()
    tried_twice: set[int] = set()
    while waiting or asked:
        later = _round(downloader_type, opener, waiting, writer, parameters, suspects, threads, folder)
        own = [entry for entry in later if entry[1].own]
        for group, failure in later:
            if hosts.is_given_up(_host(group)) and not failure.own:
                writer.drop(group, failure)
            elif not failure.own:
                asked.append((group, failure))
        waiting = []
        if own and parameters.outage_seconds and opener.network.suspicious:
            opener.network.check(parameters.outage_seconds)
            if opener.network.suspicious:
                hosts.wait(_OUTAGE_PAUSE_SECONDS)
                waiting = [group for group, _ in own]
                continue
        for group, failure in own:
            if group[0].position in tried_twice:
                writer.drop(group, failure)
            else:
                tried_twice.add(group[0].position)
                waiting.append(group)
        if asked and not waiting:
            soonest = min(failure.at for _, failure in asked)
            until = max(failure.at for _, failure in asked if failure.at <= soonest + _TOGETHER_SECONDS)
            pause = max(0.0, until - time.monotonic())
            patience -= pause
            if patience < 0:
                for group, failure in asked:
                    hosts.give_up(_host(group))
                    writer.drop(group, failure)
                return
            hosts.wait(pause)
            waiting = [group for group, failure in asked if failure.at <= until]
            asked = [entry for entry in asked if entry[1].at > until]


def _host(group: _Group) -> str:
    return urlsplit(group[0].url).hostname or ""


def _round(
    downloader_type: type,
    opener: GuardedOpener,
    groups: Sequence[_Group],
    writer: ShardWriter,
    parameters: DownloadParameters,
    suspects: Suspects,
    threads: int,
    folder: Path,
) -> list[_Later]:
    """Try each group once; those that may come later, with why they did not come now."""
    if not groups:
        return []
    ordered = interleaved(groups)
    table = pa.table({"group": range(len(ordered)), "url": [group[0].url for group in ordered]})
    rows = folder / "rows.arrow"
    with pa.OSFile(str(rows), "wb") as stream, pa.ipc.new_file(stream, table.schema) as target:
        target.write_table(table)
    adapter = _Adapter(ordered, writer, opener, parameters, suspects)
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
    return adapter.later


def requested(url: str) -> str:
    """The URL as urllib's request has it, which the opener gets."""
    return urllib.request.Request(url).full_url  # noqa: S310  # nothing is opened


def _as_it_came(image: BytesIO, _: None) -> tuple[bytes, None, None, None, None, None]:
    """For img2dataset's resizer, which is not told whose image it has: the writer looks at it, and changes no byte."""
    return image.getvalue(), None, None, None, None, None


def interleaved(groups: Sequence[_Group]) -> list[_Group]:
    """The groups so that URLs of one host stand far apart: lists are often sorted by host, and none likes a burst."""
    by_host: dict[str, list[_Group]] = {}
    for group in groups:
        by_host.setdefault(urlsplit(group[0].url).netloc, []).append(group)
    rounds = itertools.zip_longest(*by_host.values())
    return [group for together in rounds for group in together if group is not None]


class _Adapter:
    """What img2dataset takes for its writer's class and its writer. It swallows what `write` raises, so that is kept."""

    def __init__(
        self,
        groups: Sequence[_Group],
        writer: ShardWriter,
        opener: GuardedOpener,
        limits: DownloadParameters,
        suspects: Suspects,
    ) -> None:
        self._groups, self._writer, self._passing = groups, writer, opener.passing
        self._limits, self._suspects = limits, suspects
        self.later: list[_Later] = []
        self.error: OSError | None = None

    def __call__(self, *_: object) -> _Adapter:
        return self

    def write(self, image: bytes | None, key: str, caption: str | None, meta: dict[str, Any]) -> None:
        """Take one row: an image, or an error message in `meta`."""
        group = self._groups[meta["group"]]
        if image is None:
            failure = self._passing.pop(requested(group[0].url), None)
            if failure is None:
                self._writer.drop(group, parse(meta["error_message"] or ""))
            else:
                self.later.append((group, failure))
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
