"""The faults of the world's web: in what its server sends, and in the captions that a crawl found.

About a third of a crawl's rows have one, after what V (appendix G) found by hand under low scores
(images that are broken or one same default image, captions that are unrelated or cut short) and
what any downloader meets.
"""

from __future__ import annotations

import random
from typing import Literal, get_args

from pipelines.world.grammar import Grammar
from pipelines.world.scenes import Scene, draw_scene

PageFault = Literal[
    "not_found", "server_error", "slow_drip", "default_image", "truncated_jpeg", "html_as_image", "oversized"
]
CaptionFault = Literal["unrelated_caption", "caption_cut_short"]
NO_FAULT = "none"
CONTROL_CHARACTER = "control_character"
"""A caption with a NUL or a newline: an untidy row, but a right pair once that is taken out."""

PAGE_FAULTS: tuple[str, ...] = get_args(PageFault)
CAPTION_FAULTS: tuple[str, ...] = get_args(CaptionFault)

SHARES: dict[str, float] = {
    "not_found": 0.05,
    "server_error": 0.03,
    "slow_drip": 0.015,  # each costs the downloader its whole time limit
    "default_image": 0.045,
    "truncated_jpeg": 0.03,
    "html_as_image": 0.025,
    "oversized": 0.01,
    "unrelated_caption": 0.07,
    "caption_cut_short": 0.05,
}
"""Share of a crawl's rows that have each fault."""

_CUT = (0.12, 0.35)
_BOILERPLATE_SHARE = 0.5


def rows_with(fault: str, rows: int) -> int:
    """How many of `rows` rows have the fault: its share, and at least one."""
    return max(1, round(SHARES[fault] * rows))


def unrelated_caption(scene: Scene, words: Grammar, generator: random.Random) -> str:
    """Boilerplate, or the caption of a scene that has no object of the same colour and shape."""
    if generator.random() < _BOILERPLATE_SHARE:
        return generator.choice(words.boilerplate)
    seen = {(group.colour, group.shape) for group in scene.groups}
    while True:
        other = draw_scene(generator, held_out=False)
        if seen.isdisjoint((group.colour, group.shape) for group in other.groups):
            return words.caption(other, generator.randrange(len(words.captions)))


def cut_short(caption: str, generator: random.Random) -> str:
    """The first eighth to third of the caption, wherever that ends."""
    return caption[: max(1, round(len(caption) * generator.uniform(*_CUT)))].rstrip() or caption[0]
