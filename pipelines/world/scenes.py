"""Scenes: what can be in a picture, drawn at random from a seed, and which are held out."""

from __future__ import annotations

import hashlib
import random
from typing import Literal

from pydantic import BaseModel, ConfigDict

Shape = Literal["circle", "square", "triangle", "cross"]
Colour = Literal["red", "green", "blue", "yellow", "purple", "black"]
Size = Literal["small", "big"]
Relation = Literal["left", "right", "above", "below"]

SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle", "cross")
COLOURS: tuple[Colour, ...] = ("red", "green", "blue", "yellow", "purple", "black")
SIZES: tuple[Size, ...] = ("small", "big")
COUNTS = (1, 2, 3, 4)
RELATIONS: tuple[Relation, ...] = ("left", "right", "above", "below")
NAMED_FIRST: tuple[Relation, ...] = ("left", "above")
"""The first of two groups stands on the left or above, as people read: one order, one caption."""
OPPOSITE: dict[Relation, Relation] = {"left": "right", "right": "left", "above": "below", "below": "above"}

HELD_OUT_ONE_IN = 10
ALONE = 0.5
"""Share of the scenes that have one group."""


class Group(BaseModel):
    """Several equal objects that stand together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int
    size: Size
    colour: Colour
    shape: Shape


class Scene(BaseModel):
    """One group of objects somewhere in the picture, or two beside each other that differ in shape alone.

    `relation` says where the first group is: in the picture if it is alone, else seen from the second.
    `layout` seeds what no caption tells: exact places, jitter, background.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: Group
    second: Group | None = None
    relation: Relation
    layout: int

    @property
    def groups(self) -> tuple[Group, ...]:
        return (self.first,) if self.second is None else (self.first, self.second)

    def relation_of(self, group: Group) -> Relation:
        """Where `group` is."""
        return self.relation if group == self.first else OPPOSITE[self.relation]

    @property
    def meaning(self) -> str:
        """All that a caption can tell: equal for two scenes that differ in layout or in naming order."""
        sides = sorted(f"{self.relation_of(group)}:{group.model_dump_json()}" for group in self.groups)
        return "|".join(sides)

    @property
    def held_out(self) -> bool:
        """Whether scenes of this meaning are kept for benchmarks, and never trained on in any form."""
        digest = hashlib.sha256(self.meaning.encode()).digest()
        return int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0


def draw_scene(generator: random.Random, *, held_out: bool) -> Scene:
    """A random scene on the asked side of the split between training and benchmarks."""
    while True:
        shapes = generator.sample(SHAPES, 2)
        first = Group(
            count=generator.choice(COUNTS), size=generator.choice(SIZES),
            colour=generator.choice(COLOURS), shape=shapes[0],
        )  # fmt: skip
        alone = generator.random() < ALONE
        scene = Scene(
            first=first, second=None if alone else first.model_copy(update={"shape": shapes[1]}),
            relation=generator.choice(RELATIONS if alone else NAMED_FIRST), layout=generator.getrandbits(31),
        )  # fmt: skip
        if scene.held_out == held_out:
            return scene


def draw_scenes(count: int, *, seed: int, held_out: bool = False) -> list[Scene]:
    """`count` scenes; the same for the same seed."""
    generator = random.Random(seed)
    return [draw_scene(generator, held_out=held_out) for _ in range(count)]
