"""Images that somebody gives to be asked about: checked before they are decoded, as those from the web are."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageOps

from pipelines.download.image import image_size
from pipelines.download.reasons import Failure, Reason
from pipelines.download.spec import DownloadParameters
from pipelines.errors import BadInput

LIMITS = DownloadParameters(min_side=1, max_aspect_ratio=10_000)
"""As for a download, but any shape will do: a person chose the image."""
KINDS = "JPEG, PNG, GIF or WebP"


def open_image(path: Path, *, name: str | None = None) -> Image.Image:
    """The image in a file, in RGB and upright. `name`: what the file is called in errors, instead of its path.

    Raises:
        BadInput: there is no such file, or it is no image within the limits.
    """
    where = name or path
    if not path.is_file():
        raise BadInput("there is no such image file", where=where, remedy=_instead(str(path)))
    if (size := path.stat().st_size) > LIMITS.max_bytes:
        raise BadInput(
            f"the image file has {size:,} bytes, and {LIMITS.max_bytes:,} is the most", where=where,
            remedy="save it smaller, or with more compression",
        )  # fmt: skip
    content = path.read_bytes()
    try:
        image_size(content, LIMITS)
    except Failure as failure:
        raise BadInput(
            f"this cannot be used as an image: {str(failure).replace('_', ' ')}",
            where=where,
            remedy=_remedy(failure),
        ) from None
    with Image.open(io.BytesIO(content)) as image:
        # A camera turns its pictures by a note in the file; the model shall see what a person sees.
        return ImageOps.exif_transpose(image).convert("RGB")


def _instead(path: str) -> str:
    if path.startswith(("http:/", "https:/")):
        return "download the image first, and give its file"
    return "check the path"


def _remedy(failure: Failure) -> str:
    if failure.reason == Reason.TOO_MANY_PIXELS:
        return f"scale it down to {LIMITS.max_pixels:,} pixels (width x height) or fewer"
    return f"give a whole {KINDS} file"
