"""Whether bytes are a whole image within limits.

The order is what keeps it safe: the kind by the first bytes, the size by the header, and only
then the decoder, for one kind and a size that is known.
"""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

from pipelines.download.reasons import Failure, Reason
from pipelines.download.spec import DownloadParameters

_DECODER_ERRORS = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip
"""What Pillow's decoders raise for bytes that somebody made up."""
_EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp"}


_START_OF_SCAN = b"\xff\xda"
MAX_SCANS = 100
"""Progressive JPEG files have about ten."""


def image_format(data: bytes) -> str | None:
    """Pillow's name of the format that the first bytes tell, of those that are accepted."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    return None


def extension(data: bytes) -> str:
    """The file name extension of an accepted image."""
    return _EXTENSIONS[image_format(data) or ""]


def image_size(data: bytes, limits: DownloadParameters) -> tuple[int, int]:
    """Width and height in pixels of a whole image within the limits.

    Raises:
        Failure: it is none.
    """
    kind = image_format(data)
    if kind is None:
        raise Failure(Reason.NOT_AN_IMAGE, _what_instead(data))
    try:
        if kind == "WEBP":
            # Pillow makes room for the whole picture when it opens one.
            _check_size(*_webp_size(data), limits)
        if kind == "JPEG" and (scans := data.count(_START_OF_SCAN)) > MAX_SCANS:
            # Each scan goes over the whole picture: a small file of many keeps a core busy for hours.
            raise Failure(Reason.UNDECODABLE_IMAGE, f"{scans} scans")
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            width, height = image.size
            _check_size(width, height, limits)
            image.load()
    except Image.DecompressionBombError:
        raise Failure(Reason.TOO_MANY_PIXELS, "refused by the decoder") from None
    except _DECODER_ERRORS as error:
        if "truncated" in str(error) or _is_cut(kind, data):
            raise Failure(Reason.TRUNCATED_IMAGE) from None
        raise Failure(Reason.UNDECODABLE_IMAGE, f"{type(error).__name__}: {error}") from None
    return width, height


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height in the first chunk of a WebP file.

    Raises:
        ValueError: the chunk is none that such a file begins with.
    """
    chunk, payload = data[12:16], data[20:30]
    if len(payload) < 10:
        raise EOFError("truncated header")
    if chunk == b"VP8X":
        return 1 + int.from_bytes(payload[4:7], "little"), 1 + int.from_bytes(payload[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(payload[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        return int.from_bytes(payload[6:8], "little") & 0x3FFF, int.from_bytes(
            payload[8:10], "little"
        ) & 0x3FFF
    raise ValueError("no WebP chunk that a picture begins with")


def _check_size(width: int, height: int, limits: DownloadParameters) -> None:
    size = f"{width}x{height}"
    if width * height > limits.max_pixels:
        raise Failure(Reason.TOO_MANY_PIXELS, size)
    if min(width, height) < limits.min_side:
        raise Failure(Reason.TOO_SMALL, size)
    if max(width, height) > limits.max_aspect_ratio * min(width, height):
        raise Failure(Reason.ASPECT_RATIO, size)


def _is_cut(kind: str, data: bytes) -> bool:
    """Whether the format's own end is missing, or its own length is not reached."""
    if kind == "JPEG":
        return b"\xff\xd9" not in data[-64:]
    if kind == "PNG":
        return b"IEND" not in data[-64:]
    if kind == "WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return not data.rstrip(b"\0").endswith(b";")


def _what_instead(data: bytes) -> str:
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not data:
        return "empty"
    if b"<svg" in head:
        return "SVG"
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML"
    if head.startswith(b"<"):
        return "XML or HTML"
    return "unknown first bytes"
