"""Charts as inline SVG, coloured by the page's CSS variables, so that they follow its light or dark scheme.

Drawn small (380 or 480 units wide) and scaled by the page: the words stay readable on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from pipelines.report.results import DriftPoint, Histogram, Score

NARROW, WIDE = 380, 480
"""Widths in units; a unit is about a pixel where the chart stands."""
NAMED = 86
"""Where the plot begins if languages are named beside it."""
NAME_CHARACTERS = 44
"""Of a name that stands alone on a line of a narrow chart."""
COLOURS = tuple(f"var(--c{number})" for number in range(1, 7))


@dataclass(frozen=True)
class Frame:
    """The plotting area and its scales, in the SVG's units."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return (
            self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom)
        )


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers between `low` and `high`, about as many as wanted."""
    raw = (high - low) / wanted
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _svg(frame: Frame, label: str, parts: Sequence[str]) -> Markup:
    body = "".join(parts)
    # Every word in the parts went through `_text` or `escape`.
    return Markup(  # noqa: S704
        f'<svg viewBox="0 0 {frame.width} {frame.height}" role="img" aria-label="{escape(label)}">{body}</svg>'
    )


def _text(x: float, y: float, words: str, *, anchor: str = "middle", kind: str = "", whole: str = "") -> str:
    """`whole`: what the words are short for, told where the pointer rests."""
    title = f"<title>{escape(whole)}</title>" if whole and whole != words else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(words)}{title}</text>'
    )


def shortened(name: str) -> str:
    """A name that fits a narrow chart: names of models differ at their ends as often as at their beginnings."""
    return name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 17]}…{name[-16:]}"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _axes(
    frame: Frame, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]]
) -> list[str]:
    right, base = frame.width - frame.right, frame.height - frame.bottom
    parts = []
    for value, words in y_ticks:
        parts.append(_line(frame.left, frame.y(value), right, frame.y(value), "grid"))
        parts.append(_text(frame.left - 6, frame.y(value) + 4, words, anchor="end", kind="tick"))
    parts.append(_line(frame.left, base, right, base, "axis"))
    for value, words in x_ticks:
        parts.append(_text(frame.x(value), base + 17, words, kind="tick"))
    return parts


def number(value: float) -> str:
    """A tick's words: thousands as k, no needless zeros."""
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def histogram(data: Histogram, *, x_label: str) -> Markup:
    """The paper's Fig. 2: how many pairs have which score, and the threshold; good pairs apart if known."""
    top = max(data.counts) or 1
    frame = Frame(WIDE, 270, 46, 10, 26, 44, (data.edges[0], data.edges[-1]), (0, top * 1.04))
    parts = _axes(
        frame,
        [(value, number(value)) for value in ticks(*frame.x_range, 6)],
        [(value, number(value)) for value in ticks(0, top, 4)],
    )
    good = data.good or [0] * len(data.counts)
    for left, right, count, right_pairs in zip(data.edges, data.edges[1:], data.counts, good, strict=False):
        bars = [(0, right_pairs, "bar-good"), (right_pairs, count, "bar-bad" if data.good else "bar-good")]
        for low, high, kind in bars:
            if high > low:
                parts.append(
                    f'<rect x="{frame.x(left) + 0.4:.1f}" y="{frame.y(high):.1f}" class="{kind}"'
                    f' width="{max(0.6, frame.x(right) - frame.x(left) - 0.8):.1f}"'
                    f' height="{frame.y(low) - frame.y(high):.1f}"/>'
                )
    if data.threshold is not None and data.edges[0] <= data.threshold <= data.edges[-1]:
        x = frame.x(data.threshold)
        parts.append(_line(x, 20, x, frame.height - frame.bottom, "threshold"))
        side = "end" if x > frame.width * 0.6 else "start"
        parts.append(
            _text(
                x + (-5 if side == "end" else 5),
                18,
                f"kept above {data.threshold:g}",
                anchor=side,
                kind="strong",
            )
        )
    parts.append(_text((frame.left + frame.width) / 2, frame.height - 6, x_label, kind="label"))
    return _svg(frame, f"Histogram of {x_label}", parts)


def loss_curve(name: str, steps: Sequence[int], losses: Sequence[float]) -> Markup:
    """Loss by step: every point faint, and a running mean."""
    ordered = sorted(losses)
    # The first steps' losses would press the rest flat.
    high = max(ordered[min(len(ordered) - 1, int(len(ordered) * 0.98))], 1e-6)
    low = min(0.0, ordered[0])
    first, last = min(steps), max(steps)
    frame = Frame(
        NARROW, 220, 40, 12, 14, 40, (first, last if last > first else first + 1), (low, high * 1.05)
    )
    parts = _axes(
        frame,
        [(value, number(value)) for value in ticks(*frame.x_range, 5)],
        [(value, number(value)) for value in ticks(low, high, 4)],
    )

    def path(values: Sequence[float], kind: str) -> str:
        points = " ".join(
            f"{frame.x(step):.1f},{max(frame.top, frame.y(value)):.1f}"
            for step, value in zip(steps, values, strict=True)
        )
        return f'<polyline points="{points}" class="{kind}"/>'

    parts.append(path(losses, "raw"))
    parts.append(path(running_mean(losses, max(1, len(losses) // 40)), "mean"))
    parts.append(_text((frame.left + frame.width) / 2, frame.height - 5, "step", kind="label"))
    return _svg(frame, f"Loss of {name}", parts)


def running_mean(values: Sequence[float], reach: int) -> list[float]:
    """The mean of each value and the `reach` values before it, as many as there are."""
    means = []
    for index in range(len(values)):
        window = values[max(0, index - reach) : index + 1]
        means.append(math.fsum(window) / len(window))
    return means


def dots(
    rows: Sequence[tuple[str, Sequence[tuple[str, Score | None]]]],
    *,
    aim: float | None,
    colours: Mapping[str, str],
) -> Markup:
    """Scores with their intervals: under each model's name a dot and a whisker per language.

    `colours`: by language, where a legend tells them; a language without one is named beside its dot.
    """  # fmt: skip
    series = max((len(scores) for _, scores in rows), default=1)
    pitch = 34 + 19 * series
    named = any(language not in colours for _, scores in rows for language, _ in scores)
    left = NAMED if named else 12
    frame = Frame(NARROW, 6 + pitch * len(rows) + 26, left, 64, 6, 26, (0.0, 1.0), (0.0, 1.0))
    base = frame.height - frame.bottom
    parts = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_line(frame.x(value), frame.top, frame.x(value), base, "grid"))
        parts.append(_text(frame.x(value), base + 18, f"{value:.0%}", kind="tick"))
    if aim is not None:
        parts.append(_line(frame.x(aim), frame.top, frame.x(aim), base, "threshold"))
    for row, (name, scores) in enumerate(rows):
        top = frame.top + 14 + row * pitch
        at = 0 if named else frame.left
        parts.append(_text(at, top, shortened(name), anchor="start", kind="strong halo", whole=name))
        for place, (language, score) in enumerate(scores):
            y, colour = top + 16 + place * 19, colours.get(language, COLOURS[0])
            if named:
                parts.append(_text(NAMED - 10, y + 4, language, anchor="end", kind="tick"))
            if score is None:
                words = "not measured" if named else f"{language}: not measured"
                parts.append(_text(frame.left + 6, y + 4, words, anchor="start", kind="tick"))
                continue
            parts.append(
                f'<line x1="{frame.x(score.low):.1f}" y1="{y}" x2="{frame.x(score.high):.1f}" y2="{y}"'
                f' class="whisker" style="stroke:{colour}"/>'
                f'<circle cx="{frame.x(score.value):.1f}" cy="{y}" r="5" style="fill:{colour}">'
                f"<title>{escape(name)}, {escape(language)}: {score.value:.1%}</title></circle>"
                f'<text x="{frame.width}" y="{y + 4}" text-anchor="end" class="value" style="fill:{colour}">'
                f"{score.value:.1%}</text>"
            )
    return _svg(frame, "Scores by model and language", parts)


def share_curves(points: Sequence[tuple[float, Sequence[tuple[str, Score | None]]]]) -> Markup:
    """V's Fig. 5: scores over the share of a language in tuning, on an even axis since shares span decades."""
    last = len(points) - 1 or 1
    frame = Frame(WIDE, 290, 46, 18, 14, 44, (-0.2, last + 0.2), (0.0, 1.04))
    parts = _axes(
        frame,
        [(index, f"{share * 100:g}%") for index, (share, _) in enumerate(points)],
        [(value, f"{value:.0%}") for value in (0.0, 0.25, 0.5, 0.75, 1.0)],
    )
    names = [name for name, _ in points[0][1]]
    for series, name in enumerate(names):
        colour = COLOURS[series % len(COLOURS)]
        found = [(index, dict(scores)[name]) for index, (_, scores) in enumerate(points)]
        measured = [(index, score) for index, score in found if score is not None]
        line = " ".join(f"{frame.x(index):.1f},{frame.y(score.value):.1f}" for index, score in measured)
        parts.append(f'<polyline points="{line}" class="curve" style="stroke:{colour}"/>')
        for index, score in measured:
            x = frame.x(index)
            parts.append(
                f'<line x1="{x:.1f}" y1="{frame.y(score.low):.1f}" x2="{x:.1f}" y2="{frame.y(score.high):.1f}"'
                f' class="whisker" style="stroke:{colour}"/>'
                f'<circle cx="{x:.1f}" cy="{frame.y(score.value):.1f}" r="4.5" style="fill:{colour}">'
                f"<title>{escape(name)}: {score.value:.1%}</title></circle>"
            )
    parts.append(
        _text((frame.left + frame.width) / 2, frame.height - 6, "share in instruction tuning", kind="label")
    )
    return _svg(frame, "Scores over the share of the language in tuning", parts)


def drift(points: Sequence[DriftPoint]) -> Markup:
    """Keep rate of each crawl of a source, on the band that the crawls before it led to expect."""
    last = len(points) - 1
    frame = Frame(WIDE, 240, 46, 18, 14, 44, (-0.5, last + 0.5), (0.0, 1.0))
    stride = max(1, len(points) // 8)
    parts = _axes(
        frame,
        [(place, point.crawl[:14]) for place, point in enumerate(points) if place % stride == 0],
        [(value, f"{value:.0%}") for value in (0.0, 0.25, 0.5, 0.75, 1.0)],
    )
    for place, point in enumerate(points):
        x, low, high = frame.x(place), point.low, point.high
        inside = low is None or high is None or low <= point.keep_rate <= high
        if low is not None and high is not None:
            parts.append(
                f'<line x1="{x:.1f}" y1="{frame.y(low):.1f}" x2="{x:.1f}" y2="{frame.y(high):.1f}" class="band"/>'
            )
        parts.append(
            f'<circle cx="{x:.1f}" cy="{frame.y(point.keep_rate):.1f}" r="5" style="fill:{COLOURS[0 if inside else 1]}">'
            f"<title>{escape(point.crawl)}: {point.keep_rate:.1%}</title></circle>"
        )
    parts.append(_text((frame.left + frame.width) / 2, frame.height - 6, "crawl", kind="label"))
    return _svg(frame, "Keep rate by crawl", parts)
