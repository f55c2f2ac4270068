"""Drawing a scene. The same scene always gives the same bytes."""

from __future__ import annotations

import io
import math
import random

from PIL import Image, ImageDraw

from pipelines.world.scenes import Group, Relation, Scene

SIDE = 96
"""Width and height of an image, in pixels."""
_SUPERSAMPLING = 2
_RGB = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 200, 20),
    "purple": (150, 50, 180),
    "black": (25, 25, 25),
}
_RADIUS = {"small": 5.5, "big": 10.5}
_CELL = SIDE / 4


def draw(scene: Scene) -> Image.Image:
    """The scene as an RGB image of SIDE x SIDE pixels."""
    generator = random.Random(scene.layout)
    background = tuple(generator.randint(215, 255) for _ in range(3))
    image = Image.new("RGB", (SIDE * _SUPERSAMPLING, SIDE * _SUPERSAMPLING), background)
    canvas = ImageDraw.Draw(image)
    for group in scene.groups:
        for x, y in _places(group, scene.relation_of(group), scene.second is None, generator):
            _object(canvas, group, x, y, _RADIUS[group.size] * generator.uniform(0.92, 1.08))
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def jpeg(scene: Scene, *, quality: int = 90) -> bytes:
    """The scene as a JPEG file."""
    stream = io.BytesIO()
    draw(scene).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _places(group: Group, side: Relation, alone: bool, generator: random.Random) -> list[tuple[float, float]]:
    """Centres of the group's objects: cells of the half of the picture where the group stands."""
    cells = [(across, along) for across in range(2) for along in range(4)]
    chosen = generator.sample(cells, group.count)
    while alone and not _on_one_side(chosen):
        chosen = generator.sample(cells, group.count)
    places = []
    for across, along in chosen:
        across = across if side in ("left", "above") else 3 - across
        column, row = (across, along) if side in ("left", "right") else (along, across)
        jitter = 0.5 * (_CELL - 2 * _RADIUS[group.size] * 1.08)
        x, y = ((cell + 0.5) * _CELL + generator.uniform(-jitter, jitter) for cell in (column, row))
        places.append((x, y))
    return places


def _on_one_side(cells: list[tuple[int, int]]) -> bool:
    """Whether the middle of these cells lies at least twice as far out as sideways.

    Where a lone group stands has one right answer: one in the upper left corner would be both above and left.
    """
    outwards = sum(1.5 - across for across, _ in cells)
    sideways = abs(sum(1.5 - along for _, along in cells))
    return outwards >= 2 * sideways


def _object(canvas: ImageDraw.ImageDraw, group: Group, x: float, y: float, radius: float) -> None:
    x, y, r = x * _SUPERSAMPLING, y * _SUPERSAMPLING, radius * _SUPERSAMPLING
    colour = _RGB[group.colour]
    if group.shape == "circle":
        canvas.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif group.shape == "square":
        side = r * 0.88
        canvas.rectangle((x - side, y - side, x + side, y + side), fill=colour)
    elif group.shape == "triangle":
        corners = [(x + r * math.sin(turn), y - r * math.cos(turn)) for turn in (0.0, 2.094, 4.189)]
        canvas.polygon(corners, fill=colour)
    else:
        arm = r * 0.34
        canvas.rectangle((x - r, y - arm, x + r, y + arm), fill=colour)
        canvas.rectangle((x - arm, y - r, x + arm, y + r), fill=colour)
