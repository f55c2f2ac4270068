"""One row of a URL list: what becomes of it before anything is fetched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from pipelines.download.reasons import Failure, Reason
from pipelines.lake.identity import pair_uid

_URL_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\x9f]")
_LINE_BREAKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SCHEMES = ("http", "https")


@dataclass(frozen=True)
class Row:
    """A row as it goes on. `uid` is of the URL and caption that stand here."""

    uid: str
    url: str
    caption: str
    normalised: bool = False
    """Whether line breaks or tabs in the caption became spaces."""
    failure: Failure | None = None


def checked(url: bytes | None, caption: bytes | None) -> Row:
    """The row with its URL and caption as text, and with a failure if it cannot be used.

    Bytes that are not UTF-8 are shown as U+FFFD in the text of a row that is dropped.
    """
    url_text = (url or b"").decode("utf-8", "replace").strip()
    caption_text = (caption or b"").decode("utf-8", "replace")
    failure = _url_failure(url, url_text) or _caption_failure(caption, caption_text)
    normalised = False
    if failure is None and _LINE_BREAKS.search(caption_text):
        caption_text, normalised = _LINE_BREAKS.sub(" ", caption_text).strip(), True
    return Row(pair_uid(url_text, caption_text), url_text, caption_text, normalised, failure)


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


def _caption_failure(raw: bytes | None, caption: str) -> Failure | None:
    if raw is None or not caption.strip():
        return Failure(Reason.CAPTION_EMPTY)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Failure(Reason.CAPTION_ENCODING, f"byte {error.start} is not UTF-8")
    if found := _CONTROL.search(_LINE_BREAKS.sub(" ", caption)):
        return Failure(Reason.CAPTION_CONTROL_CHARACTERS, f"U+{ord(found[0]):04X}")
    return None
