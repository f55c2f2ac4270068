"""Radar charts with fixed axes, and the distribution of experts, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from pipelines.report.charts import COLOURS

SIZE, MIDDLE, REACH = 400, 200, 132
RINGS = (0.25, 0.5, 0.75, 1.0)
UPRIGHT = 0.1
"""Labels at an angle whose sine is below this are centred; others would run into their neighbours."""
USUAL_BEST = 100.0
"""Where an axis ends if it does not say so."""


def radar(axes: Sequence[tuple[str, float]], series: Sequence[tuple[str, Sequence[float | None]]]) -> Markup:
    """A polygon per series. Each axis runs from 0 to its own highest score, whatever the scores shown are.

    A polygon has no corner on an axis where its model was not measured; one that was measured on none has no polygon.
    A series has the colour of its place.
    """
    parts = []
    angles = [2 * math.pi * place / len(axes) for place in range(len(axes))]
    for ring in RINGS:
        parts.append(
            f'<polygon points="{_points([(ring, angle) for angle in angles])}" class="grid" fill="none"/>'
        )
    for (name, best), angle in zip(axes, angles, strict=True):
        x, y = _at(1.0, angle)
        parts.append(f'<line x1="{MIDDLE}" y1="{MIDDLE}" x2="{x:.1f}" y2="{y:.1f}" class="grid"/>')
        x, y = _at(1.12, angle)
        anchor = "middle" if abs(math.sin(angle)) < UPRIGHT else "start" if math.sin(angle) > 0 else "end"
        parts.append(
            f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">{escape(name)}'
            + (f' <tspan class="tick">to {best:g}</tspan></text>' if best != USUAL_BEST else "</text>")
        )
    for place, (name, values) in enumerate(series):
        colour = COLOURS[place % len(COLOURS)]
        spots = [
            (value / best, angle)
            for value, (_, best), angle in zip(values, axes, angles, strict=True)
            if value is not None
        ]
        if not spots:
            continue
        shown = ", ".join(
            f"{axis} {'not measured' if value is None else format(value, 'g')}"
            for (axis, _), value in zip(axes, values, strict=True)
        )
        parts.append(
            f'<polygon points="{_points(spots)}" style="stroke:{colour};fill:{colour};fill-opacity:.07;stroke-width:2.2">'
            f"<title>{escape(name)}: {escape(shown)}</title></polygon>"
        )
    # Every word in the parts went through `escape`.
    return Markup(  # noqa: S704
        f'<svg viewBox="-50 40 {SIZE + 100} {SIZE - 80}" role="img" aria-label="Radar chart, fixed axes">{"".join(parts)}</svg>'
    )


def _at(share: float, angle: float) -> tuple[float, float]:
    return MIDDLE + REACH * share * math.sin(angle), MIDDLE - REACH * share * math.cos(angle)


def _points(spots: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in (_at(share, angle) for share, angle in spots))


def experts(languages: Mapping[str, Sequence[float]], names: Mapping[str, str]) -> Markup:
    """Parrot's Fig. 5c: under each language a bar that is divided by the mean weight of the experts."""
    pitch, left, width = 34, 84, 380
    parts = []
    for row, (language, weights) in enumerate(languages.items()):
        y = 8 + row * pitch
        parts.append(
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(names.get(language, language))}</text>'
        )
        x, total = float(left), sum(weights) or 1.0
        for place, weight in enumerate(weights):
            span = weight / total * (width - left)
            colour = COLOURS[place % len(COLOURS)]
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{span:.1f}" height="21" style="fill:{colour}">'
                f"<title>expert {place + 1}: {weight:.1%}</title></rect>"
            )
            x += span
    height = 12 + pitch * len(languages)
    # As above.
    return Markup(  # noqa: S704
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Experts by language">{"".join(parts)}</svg>'
    )
