"""Pictures of a crawl: the histogram of its scores with the threshold (the MpM paper's Fig. 2), and its statistics."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pipelines.lake.ledger import Ledger

_KEPT, _DROPPED, _LINE = "#2a6f97", "#c9ced6", "#c1121f"
_SIZES = {"full": (8.0, 4.5, 140), "thumbnail": (4.0, 2.25, 90)}
"""Width and height in inches, and dots per inch."""
_MARGINS = {"full": (0.85, 0.55), "thumbnail": (0.75, 0.5)}
"""Inches left and below, for numbers and names; matplotlib's own layout takes as long as the drawing."""


def write(
    edges: list[float], counts: list[int], *, threshold: float, kept_share: float, full: Path, thumbnail: Path
) -> None:
    """Write both pictures; equal numbers give equal bytes."""
    for path, size in ((full, "full"), (thumbnail, "thumbnail")):
        (width, height, dots), (left, below) = _SIZES[size], _MARGINS[size]
        figure = Figure(figsize=(width, height), dpi=dots)
        figure.subplots_adjust(left / width, below / height, 1 - 0.1 / width, 1 - 0.35 / height)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        widths = [right - left for left, right in itertools.pairwise(edges)]
        colours = [_KEPT if left >= threshold else _DROPPED for left in edges[:-1]]
        axes.bar(edges[:-1], counts, widths, align="edge", color=colours, linewidth=0)
        axes.axvline(threshold, color=_LINE, linewidth=1.4)
        axes.set_title(
            f"{kept_share:.1%} of the scored pairs are above {threshold:g}", loc="left", fontsize=10
        )
        axes.set_xlabel("Chinese-CLIP score (cosine)", fontsize=9)
        axes.set_ylabel("pairs", fontsize=9)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        with warnings.catch_warnings():
            # An empty crawl has no extent to draw.
            warnings.simplefilter("ignore", UserWarning)
            figure.savefig(path, format="png", metadata={"Software": None})


_PANELS = (
    ("domain", "top domains"),
    ("shorter side", "shorter side, pixels"),
    ("characters", "caption, characters"),
)
_MOST_BARS = 10


def write_statistics(ledger: Ledger, shown: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Four panels: what was kept and dropped, by reason; rows and kept rows by domain, resolution, caption length."""
    figure = Figure(figsize=(10, 6.4), dpi=100)
    figure.subplots_adjust(left=0.19, right=0.985, bottom=0.05, top=0.955, wspace=0.72, hspace=0.2)
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2).flatten()
    dropped = sorted(ledger.dropped.items(), key=lambda item: item[1])[-_MOST_BARS + 1 :]
    names = [*(name.replace("_", " ") for name, _ in dropped), "kept"]
    panels[0].barh(
        names, [*(count for _, count in dropped), ledger.kept], color=[_DROPPED] * len(dropped) + [_KEPT]
    )
    panels[0].set_title(f"{ledger.rows_in:,} pairs", loc="left", fontsize=10)
    for axes, (dimension, title) in zip(panels[1:], _PANELS, strict=True):
        rows = shown.get(dimension, [])[:_MOST_BARS][::-1]
        # A name from the web is drawn as it is: matplotlib would read $...$ as mathematics.
        values = [row["value"].encode("ascii", "replace").decode().replace("$", r"\$")[:30] for row in rows]
        places = list(range(len(rows)))
        axes.barh(places, [row["rows"] for row in rows], color=_DROPPED, label="came")
        axes.barh(places, [row["kept"] for row in rows], color=_KEPT, label="kept")
        axes.set_yticks(places, values)
        axes.set_title(title, loc="left", fontsize=10)
    panels[1].legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2)
    for axes in panels:
        # A single bar would otherwise fill its panel.
        axes.set_ylim(-0.6, max(6, len(axes.get_yticks())) - 0.4)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.locator_params(axis="x", nbins=5)
    figure.savefig(path, format="png", metadata={"Software": None})
