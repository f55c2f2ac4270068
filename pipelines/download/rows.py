"""One row of a source: what becomes of it before any image is fetched or read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from pipelines.crawls import Records
from pipelines.download.readers.record import WEB, Place, Record
from pipelines.download.reasons import Failure, Reason
from pipelines.lake.identity import pair_uid

_URL_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\x9f]")
_ADDRESS_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LINE_BREAKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SCHEMES = ("http", "https")


@dataclass(frozen=True)
class Row:
    """A row as it goes on. `uid` is of the URL and text that stand here."""

    uid: str
    url: str
    text: str
    """A caption, or the turns of a conversation as `readers.turns.dump` writes them."""
    image: Place = WEB
    normalised: bool = False
    """Whether line breaks or tabs in the caption became spaces."""
    failure: Failure | None = None


def checked(record: Record, kind: Records = "pairs") -> Row:
    """The row with its URL and text as text, and with a failure if it cannot be used.

    Bytes that are not UTF-8 are shown as U+FFFD in the text of a row that is dropped.
    """
    url = (record.url or b"").decode("utf-8", "replace").strip()
    text = (record.text or b"").decode("utf-8", "replace")
    failure = record.fault
    if failure is None:
        failure = _url_failure(record.url, url) if record.image == WEB else _address_failure(url)
    failure = failure or _text_failure(record.text, text, kind)
    normalised = False
    if failure is None and kind == "pairs" and _LINE_BREAKS.search(text):
        text, normalised = _LINE_BREAKS.sub(" ", text).strip(), True
    # Several faulty rows without a URL or text would all be one; where they stand tells them apart.
    identity = f"{url}\0{record.where}" if record.fault is not None else url
    return Row(pair_uid(identity, text), url, text, record.image, normalised, failure)


def _url_failure(raw: bytes | None, url: str) -> Failure | None:
    if raw is None or not url:
        return Failure(Reason.URL_EMPTY)
    if "\ufffd" in url or _URL_FORBIDDEN.search(url):
        return Failure(Reason.URL_INVALID, "not UTF-8, or holds a space or a control character")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        return Failure(Reason.URL_INVALID, str(error))
    if parts.scheme not in _SCHEMES:
        return Failure(Reason.URL_SCHEME, parts.scheme or "none")
    if not parts.hostname:
        return Failure(Reason.URL_INVALID, "names no host")
    return None


def _address_failure(address: str) -> Failure | None:
    if "\ufffd" in address or _ADDRESS_FORBIDDEN.search(address):
        return Failure(Reason.IMAGE_NAME_REFUSED, "not UTF-8, or holds a control character")
    return None


def _text_failure(raw: bytes | None, text: str, kind: Records) -> Failure | None:
    if raw is None or not text.strip():
        return Failure(Reason.CAPTION_EMPTY)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Failure(Reason.CAPTION_ENCODING, f"byte {error.start} is not UTF-8")
    # The line breaks within a turn stay; those of a caption become spaces.
    parts = [part for turn in json.loads(text) for part in turn] if kind == "conversations" else [text]
    for part in parts:
        if found := _CONTROL.search(_LINE_BREAKS.sub(" ", part)):
            return Failure(Reason.CAPTION_CONTROL_CHARACTERS, f"U+{ord(found[0]):04X}")
    return None
