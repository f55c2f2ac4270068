"""Fetching one published file: whole or not at all, in several attempts, each going on where the last broke off."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import httpx
from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_after_attempt, wait_exponential

from pipelines.benchmark_files.spec import Published
from pipelines.errors import BadInput, Interrupted, StoreBusy, io_error_explained
from pipelines.lake import location
from pipelines.lake.identity import file_sha256

ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 1.0
"""Before the second attempt; doubles each time."""
CONNECT_SECONDS = 30.0
BLOCK = 1 << 16
_ASK_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_log = logging.getLogger(__name__)


class Passing(Exception):
    """What another attempt may get over."""


class Unreachable(Passing):
    """There is no connection: the server may be away for a moment, or the address wrong."""


@dataclass
class _Partial:
    """What is there of a file, and of which version of it."""

    path: Path
    version: str = ""
    """The ETag, if it is one that vouches for every byte."""
    size: int = 0


def fetch(published: Published, path: Path, *, seconds: float) -> None:
    """Put the file at `path`. `seconds`: longest wait for its next bytes.

    Raises:
        BadInput: there is no such file or server, it may not be had, or it is not the pinned one.
        Interrupted: the connection broke or the server failed in every attempt.
    """
    if location.is_remote(Path(published.url)):
        _from_store(published, path)
    else:
        _from_web(published, path, seconds)
    found = file_sha256(path)
    if published.sha256 is not None and found != published.sha256:
        raise BadInput(
            f"the file has the digest {found}, not the pinned {published.sha256}",
            where=published.url,
            remedy="the file changed since it was pinned, or the address gives another: look at it, then pin the new digest",
        )


def _from_store(published: Published, path: Path) -> None:
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

    try:
        with path.open("wb") as target:
            location.download(Path(published.url), target)
    except (OSError, BotoCoreError) as error:
        if isinstance(error, OSError) and isinstance(io_error_explained(error, path), BadInput | StoreBusy):
            raise
        raise _not_had(published, f"{type(error).__name__}: {error}") from None


def _from_web(published: Published, path: Path, seconds: float) -> None:
    partial = _Partial(path)
    path.unlink(missing_ok=True)
    attempts = Retrying(
        retry=retry_if_exception_type(Passing),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(FIRST_PAUSE_SECONDS, max=60),
        before_sleep=before_sleep_log(_log, logging.INFO),
        reraise=True,
    )
    timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
    # As it lies there: a body that is compressed on the way could not be gone on with, nor held against a length.
    headers = {"Accept-Encoding": "identity"}
    try:
        with httpx.Client(timeout=timeout, headers=headers, follow_redirects=True) as client:
            attempts(_attempt, client, published, partial)
    except Unreachable as error:
        raise _not_had(published, str(error)) from None
    except Passing as error:
        raise Interrupted(
            f"{published.url} cannot be fetched now: {error}, in each of {ATTEMPTS} attempts. Run again later, or fetch "
            "it by hand and name it under `files`"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _not_had(published, f"{type(error).__name__}: {error}") from None


def _attempt(client: httpx.Client, published: Published, partial: _Partial) -> None:
    """Get what is missing of the file, or all of it where it is another by now.

    Raises:
        Passing: the connection broke, or the server is in trouble.
        BadInput: the server says that there is no such file, or that it may not be had.
    """
    wanted = {"Range": f"bytes={partial.size}-", "If-Range": partial.version} if partial.version else {}
    try:
        with client.stream("GET", published.url, headers=wanted) as answer:
            status = answer.status_code
            if status in _ASK_AGAIN:
                raise Passing(f"HTTP {status} {answer.reason_phrase}")
            if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and wanted:
                partial.version = ""
                raise Passing("the server has no more than is here already, though it had not ended the file")
            if status >= httpx.codes.BAD_REQUEST:
                raise _not_had(published, f"HTTP {status} {answer.reason_phrase}")
            plain = answer.headers.get("Content-Encoding", "identity") == "identity"
            place = answer.headers.get("Content-Range", "")
            goes_on = status == httpx.codes.PARTIAL_CONTENT and place.startswith(f"bytes {partial.size}-")
            tag = answer.headers.get("ETag", "")
            partial.version = tag if plain and tag.startswith('"') else ""
            partial.size = partial.size if goes_on else 0
            with partial.path.open("ab" if goes_on else "wb") as target:
                for block in answer.iter_raw(BLOCK) if plain else answer.iter_bytes(BLOCK):
                    partial.size += target.write(block)
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Unreachable(f"{type(error).__name__}: {error}") from None
    except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError) as error:
        raise Passing(f"{type(error).__name__} after {partial.size:,} bytes: {error}") from None


def _not_had(published: Published, what: str) -> BadInput:
    remedy = "check the address and the network, or fetch it by hand and name it under `files`"
    if what.startswith(("HTTP 401", "HTTP 403")):
        remedy = "the server wants a login or a licence accepted: fetch it by hand and name it under `files`"
    return BadInput(f"the file cannot be fetched: {what}", where=published.url, remedy=remedy)
