"""Clean image-caption pairs of the world, each with captions that nearly fit: what the small CLIP learns from.

The hard negatives are of the kinds that the paper's filter is there for (section 4.1 and appendix G): a
caption of another picture, from one word off to another scene, a caption cut short, and boilerplate.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pyarrow as pa

from pipelines.world import render
from pipelines.world.grammar import Grammar, grammar
from pipelines.world.scenes import COLOURS, COUNTS, RELATIONS, SHAPES, SIZES, Group, Scene, draw_scene

SCHEMA = pa.schema(
    [
        pa.field("image", pa.binary(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("hard_negatives", pa.list_(pa.string()), nullable=False),
    ]
)
"""`image` is a JPEG file, as the crawl's good images are; `hard_negatives` are in the pair's language."""

CHANGED, CUT, BOILERPLATE, OTHER_SCENE = 4, 2, 1, 1
"""How many hard negatives of each kind a pair has."""
SHORTEST_CUT, LONGEST_CUT = 0.25, 0.9
"""A cut caption keeps a share of its characters between these."""

_PHRASINGS = 1_000


def reference_pairs(count: int, *, seed: int, languages: Sequence[str]) -> pa.Table:
    """`count` pairs, every one of another scene, the languages in turn; the same for the same seed.

    No scene whose meaning is held out for benchmarks is drawn or described, not even in a hard negative.
    """
    generator = random.Random(f"reference pairs {seed}")
    rows = []
    for index in range(count):
        table = grammar(languages[index % len(languages)])
        scene = draw_scene(generator, held_out=False)
        rows.append(
            {
                "image": render.jpeg(scene),
                "language": table.language,
                "caption": table.caption(scene, generator.randrange(_PHRASINGS)),
                "hard_negatives": hard_negatives(scene, table, generator),
            }
        )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def hard_negatives(scene: Scene, table: Grammar, generator: random.Random) -> list[str]:
    """Captions in the table's language that do not fit the scene, most of them by little."""

    def say(other: Scene) -> str:
        return table.caption(other, generator.randrange(_PHRASINGS))

    changed = [say(change_one(scene, generator)) for _ in range(CHANGED)]
    cut = [ends_early(say(scene), generator) for _ in range(CUT)]
    boilerplate = [generator.choice(table.boilerplate) for _ in range(BOILERPLATE)]
    others = [say(draw_scene(generator, held_out=False)) for _ in range(OTHER_SCENE)]
    return changed + cut + boilerplate + others


def change_one(scene: Scene, generator: random.Random) -> Scene:
    """The scene with one thing told wrong: a colour, shape, count or size of one group, or the relation."""
    while True:
        topic = generator.choice(("colour", "shape", "count", "size", "relation"))
        if topic == "relation":
            changed = scene.model_copy(update={"relation": _other(RELATIONS, (scene.relation,), generator)})
        else:
            place = generator.randrange(len(scene.groups))
            beside = scene.groups[:place] + scene.groups[place + 1 :]
            told = _change_group(scene.groups[place], beside, topic, generator)
            changed = scene.model_copy(update={("first", "second")[place]: told})
        if not changed.held_out:
            return changed


def _change_group(group: Group, beside: Sequence[Group], topic: str, generator: random.Random) -> Group:
    value: object
    if topic == "colour":
        value = _other(COLOURS, (group.colour, *(other.colour for other in beside)), generator)
    elif topic == "shape":
        value = _other(SHAPES, (group.shape, *(other.shape for other in beside)), generator)
    elif topic == "count":
        value = _other(COUNTS, (group.count,), generator)
    else:
        value = _other(SIZES, (group.size,), generator)
    return group.model_copy(update={topic: value})


def _other(values: Sequence[object], taken: Sequence[object], generator: random.Random) -> object:
    return generator.choice([value for value in values if value not in taken])


def ends_early(caption: str, generator: random.Random) -> str:
    """The beginning of a caption: it ends early, and without its final mark."""
    kept = max(1, int(len(caption) * generator.uniform(SHORTEST_CUT, LONGEST_CUT)))
    return caption[:kept].rstrip()
