"""Which bytes count as a whole image."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.download.image import _webp_size, extension, image_size
from pipelines.download.reasons import Failure, Reason
from pipelines.world.server import pixel_bomb
from tests.download.conftest import limits
from tests.download.hostile_server import picture

KINDS = ["JPEG", "PNG", "GIF", "WEBP"]
LIMITS = limits(80)


def reason(data: bytes) -> Reason:
    with pytest.raises(Failure) as caught:
        image_size(data, LIMITS)
    return caught.value.reason


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "I;16"), ("PNG", "LA"),
     ("GIF", "P"), ("WEBP", "RGB")],
)  # fmt: skip
def test_a_whole_image_keeps_its_bytes(kind: str, mode: str) -> None:
    if mode == "I;16":
        stream = io.BytesIO()
        Image.frombytes(mode, (64, 48), bytes(64 * 48 * 2)).save(stream, kind)
        data = stream.getvalue()
    else:
        data = picture(5, kind=kind, mode=mode)
    assert image_size(data, LIMITS) == (64, 48)
    assert extension(data) in ("jpg", "png", "gif", "webp")


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("L", (64, 48), shade) for shade in (0, 100, 200)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    assert image_size(stream.getvalue(), LIMITS) == (64, 48)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_was_cut_anywhere_is_truncated(kind: str) -> None:
    whole = picture(6, kind=kind)
    for tenths in range(2, 10):
        assert reason(whole[: len(whole) * tenths // 10]) == Reason.TRUNCATED_IMAGE


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", Reason.NOT_AN_IMAGE),
        (b"<!doctype html><p>gone", Reason.NOT_AN_IMAGE),
        (b"\xef\xbb\xbf\n<svg xmlns='http://www.w3.org/2000/svg'/>", Reason.NOT_AN_IMAGE),
        (b"%PDF-1.7", Reason.NOT_AN_IMAGE),
        (b"%!PS-Adobe-3.0 EPSF-3.0", Reason.NOT_AN_IMAGE),
        (pixel_bomb(), Reason.TOO_MANY_PIXELS),
        (picture(size=(1200, 1000)), Reason.TOO_MANY_PIXELS),
        (picture(size=(64, 8)), Reason.TOO_SMALL),
        (picture(size=(400, 20)), Reason.ASPECT_RATIO),
    ],
)
def test_what_is_no_image_within_limits_has_its_reason(data: bytes, expected: Reason) -> None:
    assert reason(data) == expected


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    """Each scan goes over all pixels; a file of 20 MB can hold a million."""
    stream = io.BytesIO()
    Image.frombytes("RGB", (64, 48), bytes(64 * 48 * 3)).save(stream, "JPEG", progressive=True)
    whole = stream.getvalue()
    assert image_size(whole, LIMITS) == (64, 48)
    at = whole.rindex(b"\xff\xda")
    assert reason(whole[:at] + whole[at:-2] * 200 + whole[-2:]) == Reason.UNDECODABLE_IMAGE


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0"}, {"save_all": True}])
def test_a_webp_of_each_kind_tells_its_size_in_its_first_chunk(options: dict[str, object]) -> None:
    stream = io.BytesIO()
    Image.frombytes("RGB", (123, 45), bytes(123 * 45 * 3)).save(stream, "WEBP", **options)
    assert _webp_size(stream.getvalue()) == (123, 45)


def test_pixel_bombs_are_refused_before_memory_is_made_for_them() -> None:
    """In a process of its own, whose greatest memory is looked at before and after."""
    stream = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(stream, "WEBP", lossless=True)
    gif = b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + b"\xf0\0\0" + bytes(6)
    gif += b"," + struct.pack("<HHHH", 0, 0, 60_000, 60_000) + b"\0\x02\x02D\x01\0;"
    jpeg = bytearray(picture(1))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    bombs = [pixel_bomb(), stream.getvalue(), gif, bytes(jpeg)]
    code = (
        "import base64, json, resource, sys\n"
        "from pipelines.download.image import image_size\n"
        "from pipelines.download.reasons import Failure\n"
        "from tests.download.conftest import limits\n"
        "bombs = [base64.b64decode(one) for one in json.load(sys.stdin)]\n"
        "def most(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "answers = []\n"
        "for bomb in bombs:\n"
        "    before = most()\n"
        "    try:\n"
        "        image_size(bomb, limits(80))\n"
        "    except Failure as failure:\n"
        "        answers.append([failure.reason, most() - before])\n"
        "print(json.dumps(answers))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps([base64.b64encode(bomb).decode() for bomb in bombs]),
        capture_output=True, check=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    for found, megabytes in json.loads(done.stdout):
        assert found == Reason.TOO_MANY_PIXELS
        assert megabytes < 20


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
)
def test_damage_is_a_reason_and_never_another_exception(kind: str, places: list[tuple[float, int]]) -> None:
    data = bytearray(picture(7, kind=kind))
    for place, value in places:
        data[int(place * len(data))] = value
    with contextlib.suppress(Failure):
        image_size(bytes(data), LIMITS)
