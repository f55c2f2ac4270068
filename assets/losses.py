"""The losses that a training logged, and their curve as a small picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from pipelines.lake import cache
from pipelines.lake.manifest import Manifest

LOSSES_FILE = "losses.parquet"
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 480, 180, 56, 22, 10
FURTHER = ("gradient_norm", "learning_rate")
FURTHER_BEGINNINGS = ("loss: ", "pivot gap: ", "experts: ")
MOST_FURTHER = 12
"""More curves than this are left to TensorBoard: metadata is stored with every event."""
POINTS = 240
"""More losses than this are averaged in groups: the picture has no more pixels to show them."""


def logged_losses(table: Path, manifest: Manifest) -> list[float | None]:
    """The losses in order: of `losses.parquet` where there is one, else of the metrics; [] if there are none."""
    for file in manifest.files:
        if Path(file.path).name == LOSSES_FILE:
            import pyarrow.parquet as parquet  # the web UI loads this module, and need not load pyarrow

            # Not `read_table`, which imports pandas.
            with parquet.ParquetFile(cache.fetched(table / file.path, file.sha256)) as log:
                read: list[float | None] = log.read(columns=["loss"])["loss"].to_pylist()
            return read
    logged: list[float | None] = manifest.metrics.get("losses", [])
    return logged


def further_curves(table: Path, manifest: Manifest) -> dict[str, list[float]]:
    """What else a training logged, by name, measured steps alone: losses by source and language, norms, the pivot gap."""
    for file in manifest.files:
        if Path(file.path).name == LOSSES_FILE:
            import pyarrow.parquet as parquet

            with parquet.ParquetFile(cache.fetched(table / file.path, file.sha256)) as log:
                names = [
                    name
                    for name in log.schema_arrow.names
                    if name in FURTHER or name.startswith(FURTHER_BEGINNINGS)
                ]
                columns = log.read(columns=names) if names else {}
                return {
                    name: [value for value in columns[name].to_pylist() if value is not None]
                    for name in names
                }
    return {}


def curve_svg(values: Sequence[float], *, x_label: str) -> str:
    """`values`, at least one and all finite, in order; the least and the greatest stand at the axis."""
    group = math.ceil(len(values) / POINTS)
    means = [
        sum(values[at : at + group]) / len(values[at : at + group]) for at in range(0, len(values), group)
    ]
    low, high = min(means), max(means)
    across, down = WIDTH - LEFT - 8, HEIGHT - TOP - BOTTOM

    def point(index: int, value: float) -> str:
        x = LEFT + across * (index / max(len(means) - 1, 1))
        y = TOP + down * (1 - (value - low) / ((high - low) or 1))
        return f"{x:.1f},{y:.1f}"

    line = " ".join(point(index, value) for index, value in enumerate(means))
    floor = HEIGHT - BOTTOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
        f'font-size="11" fill="#777"><path d="M{LEFT},{TOP}V{floor}H{WIDTH - 8}" fill="none" stroke="#999"/>'
        f'<polyline points="{line}" fill="none" stroke="#3b82f6" stroke-width="1.5"/>'
        f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{high:.3g}</text>'
        f'<text x="{LEFT - 6}" y="{floor}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">0</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end">{x_label}</text></svg>'
    )
