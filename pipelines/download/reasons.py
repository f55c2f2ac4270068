"""Why a row is dropped: a closed set of reasons, and the exception that carries one."""

from __future__ import annotations

import re
from enum import StrEnum

from pipelines.lake import takedown

MAX_DETAIL = 200
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\uffff]+")


class Reason(StrEnum):
    """Servers write error texts, so those are details; the reasons are only these."""

    # Of the row itself.
    URL_EMPTY = "url_empty"
    URL_INVALID = "url_invalid"
    URL_SCHEME = "url_scheme"
    CAPTION_EMPTY = "caption_empty"
    CAPTION_ENCODING = "caption_encoding"
    CAPTION_CONTROL_CHARACTERS = "caption_control_characters"
    DUPLICATE_ROW = "duplicate_row"
    BEYOND_SLICE = "beyond_slice"
    TAKEN_DOWN = takedown.REASON
    ROW_MALFORMED = "row_malformed"
    CONVERSATION_MALFORMED = "conversation_malformed"
    CONVERSATION_EMPTY_TURN = "conversation_empty_turn"
    SEVERAL_IMAGES = "several_images"
    # Of an image on disk.
    IMAGE_MISSING = "image_missing"
    IMAGE_NAME_REFUSED = "image_name_refused"
    IMAGE_UNREADABLE = "image_unreadable"
    # Of the guard.
    USERINFO_REFUSED = "userinfo_refused"
    PORT_REFUSED = "port_refused"
    ADDRESS_REFUSED = "address_refused"
    REDIRECT_REFUSED = "redirect_refused"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    DISALLOWED_BY_SITE = "disallowed_by_site"
    # Of the network and the server.
    DNS_FAILED = "dns_failed"
    CONNECTION_FAILED = "connection_failed"
    TLS_FAILED = "tls_failed"
    TIMEOUT = "timeout"
    BAD_RESPONSE = "bad_response"
    HTTP_403 = "http_403"
    HTTP_404 = "http_404"
    HTTP_410 = "http_410"
    HTTP_429 = "http_429"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    HTTP_OTHER = "http_other"
    TOO_LARGE = "too_large"
    # Of the image.
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED_IMAGE = "truncated_image"
    UNDECODABLE_IMAGE = "undecodable_image"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    ASPECT_RATIO = "aspect_ratio"
    WORKER_KILLED = "worker_killed"
    # What img2dataset reports in words of its own.
    DOWNLOAD_FAILED = "download_failed"


PASSING = frozenset({
    Reason.DNS_FAILED, Reason.CONNECTION_FAILED, Reason.TIMEOUT, Reason.HTTP_429, Reason.HTTP_5XX,
})  # fmt: skip
"""What may be otherwise another day: rows dropped for these are what another attempt downloads again."""

NOT_ASKED_FOR = frozenset({Reason.BEYOND_SLICE, Reason.TAKEN_DOWN})
"""Rows that could be used and are not wanted: whether their images could be had is not known."""


class Failure(Exception):
    """A row is dropped. As text, `reason: detail`: img2dataset hands on only the text of an error."""

    def __init__(
        self,
        reason: Reason,
        detail: str = "",
        *,
        retryable: bool = False,
        wait_seconds: float = 0.0,
        own: bool = False,
    ) -> None:
        self.reason, self.detail = reason, clean(detail)
        self.retryable = retryable
        self.wait_seconds = wait_seconds
        """How long the server asks to be left alone before the next try."""
        self.own = own
        """Whether the trouble may be this machine's own network."""
        self.at = 0.0
        """When, by the monotonic clock, another try may be made; set by the opener."""
        super().__init__(f"{reason}: {self.detail}")


def clean(detail: str) -> str:
    """The detail without control characters, and of bounded length: strangers write it."""
    return _UNPRINTABLE.sub(" ", detail)[:MAX_DETAIL].strip()


def parse(text: str) -> Failure:
    """The failure whose text this is; another error's text is a failure to download."""
    reason, _, detail = text.partition(": ")
    if reason in _VALUES:
        return Failure(Reason(reason), detail)
    return Failure(Reason.DOWNLOAD_FAILED, text)


_VALUES = frozenset(reason.value for reason in Reason)


def of_status(status: int) -> Reason:
    """The reason for an HTTP status that brings no image."""
    named = f"http_{status}"
    if named in _VALUES:
        return Reason(named)
    return {4: Reason.HTTP_4XX, 5: Reason.HTTP_5XX}.get(status // 100, Reason.HTTP_OTHER)
