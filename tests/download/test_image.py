"""Which bytes count as a whole image."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.download.image import Inspector, extension, image_size
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
    assert Inspector(LIMITS)(io.BytesIO(data)) == (data, 64, 48, 64, 48, None)
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


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
)
def test_damage_is_a_reason_and_never_another_exception(kind: str, places: list[tuple[float, int]]) -> None:
    data = bytearray(picture(7, kind=kind))
    for place, value in places:
        data[int(place * len(data))] = value
    answer = Inspector(LIMITS)(io.BytesIO(bytes(data)))
    assert answer[0] == bytes(data) if answer[5] is None else answer[:5] == (None,) * 5
