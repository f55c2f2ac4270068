"""What is drawn is what the scene says, with no second truth."""

import numpy as np

from pipelines.world.render import SIDE, draw
from pipelines.world.scenes import Relation, Scene, draw_scenes

OUTWARDS: dict[Relation, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}
"""Steps to the right and down."""


def middle(scene: Scene) -> tuple[float, float]:
    """Where the middle of all that is no background lies, from the picture's middle, in pixels right and down."""
    pixels = np.asarray(draw(scene)).astype(int)
    rows, columns = np.nonzero(np.abs(pixels - np.median(pixels, axis=(0, 1))).max(axis=2) > 40)
    return float(columns.mean() - SIDE / 2), float(rows.mean() - SIDE / 2)


def test_a_lone_group_stands_on_one_side_only() -> None:
    alone = [scene for scene in draw_scenes(300, seed=5) if scene.second is None]
    assert len(alone) > 100
    for scene in alone:
        right, down = middle(scene)
        across, along = OUTWARDS[scene.relation]
        outwards = right * across + down * along
        sideways = abs(right * along) + abs(down * across)
        assert outwards > 1.2 * sideways, scene
