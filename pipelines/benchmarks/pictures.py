"""The images of questions, opened; and as they are sent to a server."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from pipelines.benchmarks.benchmark import catalogue
from pipelines.benchmarks.question import Asked
from pipelines.errors import BadInput

SENT_AS_THEY_ARE = {"PNG": "png", "JPEG": "jpeg", "MPO": "jpeg", "WEBP": "webp", "GIF": "gif"}
"""Pillow's name of a format -> its media type, of the formats that servers take. An MPO is a JPEG with more behind it."""


def opened(asked: Asked) -> Image.Image:
    """The question's image in RGB.

    Raises:
        BadInput: the bytes are no image; the message names the file and the item.
    """
    return decoded(
        asked.image,
        where=f"{source(asked)} (the image's sha256 is {asked.image_sha256})",
        remedy="fetch the benchmark again; if its file is as published, take the item out",
    )


def decoded(content: bytes | memoryview, *, where: str | Path, remedy: str) -> Image.Image:
    """An image file's content in RGB.

    Raises:
        BadInput: the bytes are no image.
    """
    try:
        return Image.open(io.BytesIO(content)).convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        words = str(error)
        if isinstance(error, UnidentifiedImageError):
            words = f"these {len(content)} bytes are no image"
        raise BadInput(
            f"the image of an item cannot be decoded: {words}", where=where, remedy=remedy
        ) from None


def source(asked: Asked) -> str:
    """Where the question comes from, for a person."""
    file = catalogue()[asked.benchmark].file.format(language=asked.language)
    return f"{file}, item {asked.item!r}"


def as_sent(asked: Asked) -> tuple[str, bytes]:
    """The image's media type, and the bytes of that type: a format that servers do not take is made a PNG.

    Raises:
        BadInput: the bytes are no image.
    """
    try:
        with Image.open(io.BytesIO(asked.image)) as image:
            kind = SENT_AS_THEY_ARE.get(image.format or "")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        kind = None
    if kind is not None:
        return f"image/{kind}", bytes(asked.image)
    made = io.BytesIO()
    opened(asked).save(made, "PNG")
    return "image/png", made.getvalue()
