"""The histogram of the scores with the threshold drawn: the MpM paper's Fig. 2, over this crawl."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

_KEPT, _DROPPED, _LINE = "#2a6f97", "#c9ced6", "#c1121f"
_SIZES = {"full": (8.0, 4.5, 140), "thumbnail": (4.0, 2.25, 90)}
"""Width and height in inches, and dots per inch."""


def write(
    edges: list[float], counts: list[int], *, threshold: float, kept_share: float, full: Path, thumbnail: Path
) -> None:
    """Write both pictures; equal numbers give equal bytes."""
    for path, (width, height, dots) in ((full, _SIZES["full"]), (thumbnail, _SIZES["thumbnail"])):
        figure = Figure(figsize=(width, height), dpi=dots, layout="constrained")
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
