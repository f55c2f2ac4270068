"""What a person reads about a table in Dagster, made from its manifest.

Numbers become numbers, so that Dagster plots them over time. Text that came from the web is
never shown as Markdown without being escaped.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from assets.losses import MOST_FURTHER, curve_svg, further_curves, logged_losses
from pipelines.lake import cache, location
from pipelines.lake.ledger import Ledger
from pipelines.lake.manifest import Manifest
from pipelines.launch.spec import Usage

INLINE_BYTES = 30_000
"""A larger picture is shown as a thumbnail: metadata is stored with every event."""
SMALL = "_small"
"""A stage that draws its own thumbnail of `x.png` calls it `x_small.png`."""
THUMBNAIL_WIDTHS = (640, 480, 320, 200)
CURVE_POINTS = 4
"""A list of at least as many figures is drawn."""
CELL_CHARACTERS = 200
FILES_SHOWN = 20

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~<>&-])")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;"}


def escape(text: str) -> str:
    """`text` as Markdown that shows exactly these characters, on one line, cut to a cell's length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) > CELL_CHARACTERS:
        line = line[: CELL_CHARACTERS - 1] + "…"
    return _MARKDOWN.sub(lambda match: _ENTITIES.get(match[1], "\\" + match[1]), line)


def markdown_table(header: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table; every cell is escaped."""
    lines = [header, ["---"] * len(header)]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text += ["| " + " | ".join(escape(str(cell)) for cell in row) + " |" for row in rows]
    return "\n".join(text)


def of_usage(usage: Usage | None) -> dict[str, dg.MetadataValue[Any]]:
    """What a job took; nothing where the table was reused, and no figure that is not known."""
    if usage is None:
        return {}
    shown: dict[str, dg.MetadataValue[Any]] = {
        "job seconds": dg.MetadataValue.float(round(usage.running_seconds, 1))
    }
    if usage.job:
        shown["job"] = dg.MetadataValue.text(usage.job)
        shown["attempts"] = dg.MetadataValue.int(usage.attempts)
        if usage.queue:
            shown["queue"] = dg.MetadataValue.text(usage.queue)
        if usage.first_place is not None:
            shown["first place in the queue"] = dg.MetadataValue.int(usage.first_place)
        shown["queued seconds"] = dg.MetadataValue.float(round(usage.queued_seconds, 1))
        shown["GPU-hours"] = dg.MetadataValue.float(round(usage.gpu_hours, 4))
    if usage.cost is not None:
        shown["cost"] = dg.MetadataValue.float(round(usage.cost, 4))
    if usage.goodput is not None:
        shown["goodput"] = dg.MetadataValue.float(round(usage.goodput, 4))
    return shown


def of_table(table: Path, manifest: Manifest, *, reused: bool) -> dict[str, dg.MetadataValue[Any]]:
    """The metadata of a materialization of `table`."""
    shown: dict[str, dg.MetadataValue[Any]] = {}
    for page in [] if location.is_remote(table) else sorted(table.glob("*.html")):
        shown[page.name] = dg.MetadataValue.path(str(page.resolve()))
    shown.update(_plots(table, manifest))
    if manifest.ledger is not None:
        shown["ledger"] = dg.MetadataValue.md(_ledger(manifest.ledger))
        shown["keep rate"] = dg.MetadataValue.float(manifest.ledger.keep_rate)
    rows_made = manifest.rows if manifest.ledger is None else manifest.ledger.kept
    if rows_made:
        shown["dagster/row_count"] = dg.MetadataValue.int(rows_made)
    # What a picture shows, and what stands above, needs no second place.
    seen = {name.removeprefix("plot: ") for name in shown} | ({"keep_rate"} if manifest.ledger else set())
    shown.update(of_metrics({name: one for name, one in manifest.metrics.items() if name not in seen}))
    shown |= {
        "reused": dg.MetadataValue.bool(reused),
        "made": dg.MetadataValue.text(manifest.created),
        "seconds": dg.MetadataValue.float(manifest.seconds),
        "table": dg.MetadataValue.path(location.url(location.absolute(table))),
        "files": dg.MetadataValue.md(_files(manifest)),
        "bytes": dg.MetadataValue.int(sum(file.bytes for file in manifest.files)),
        "fingerprint": dg.MetadataValue.text(manifest.fingerprint),
    }
    if manifest.inputs:
        rows = [[name, version] for name, version in manifest.inputs.items()]
        shown["inputs"] = dg.MetadataValue.md(markdown_table(["input", "data version"], rows))
    log = cache.scratch(table) / "_launch" / "log.txt"
    if log.is_file():
        shown["log"] = dg.MetadataValue.path(str(log.resolve()))
    return shown


def of_metrics(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, dg.MetadataValue[Any]]:
    """Metrics as typed metadata: mappings of figures are spread out, so that each can be plotted."""
    shown: dict[str, dg.MetadataValue[Any]] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping) and value and all(_is_figure(part) for part in value.values()):
            shown.update(of_metrics(value, f"{prefix}{name}/"))
        else:
            shown[prefix + name] = _typed(value)
    return shown


def _plots(table: Path, manifest: Manifest) -> dict[str, dg.MetadataValue[Any]]:
    """The loss curve, if losses were logged, and the pictures among the files."""
    plots: dict[str, dg.MetadataValue[Any]] = {}
    losses = logged_losses(table, manifest)
    if "losses" not in manifest.metrics and _is_curve(losses):
        plots["plot: loss"] = _curve("loss", losses)
        for name, values in list(further_curves(table, manifest).items())[:MOST_FURTHER]:
            if _is_curve(values):
                plots[f"plot: {name}"] = _curve(name, values)
    for file in manifest.files:
        path = table / file.path
        if path.suffix == ".png" and not path.stem.endswith(SMALL):
            plots[f"plot: {path.stem}"] = _picture(cache.fetched(path, file.sha256))
    return plots


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_curve(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) >= CURVE_POINTS and all(_is_figure(point) for point in value)
    )


def _curve(title: str, values: list[Any]) -> dg.MetadataValue[Any]:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return dg.MetadataValue.text("no finite value")
    picture = curve_svg(finite, x_label=f"{len(finite)} values")
    return dg.MetadataValue.md(_inline(title, "svg+xml", picture.encode()))


def _typed(value: Any) -> dg.MetadataValue[Any]:
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        # JSON has no NaN, and one would break the page that shows it.
        return dg.MetadataValue.float(value) if math.isfinite(value) else dg.MetadataValue.text(str(value))
    if isinstance(value, str):
        return dg.MetadataValue.text(value)
    if _is_curve(value):
        return _curve("curve", value)
    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        header = list(value[0])
        rows = [[row.get(column, "") for column in header] for row in value]
        return dg.MetadataValue.md(markdown_table([escape(name) for name in header], rows))
    return dg.MetadataValue.json(_without_nan(value))


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _ledger(ledger: Ledger) -> str:
    rows: list[list[Any]] = [["rows in", f"{ledger.rows_in:,}"], ["kept", f"{ledger.kept:,}"]]
    rows += [[f"dropped: {reason}", f"{count:,}"] for reason, count in ledger.dropped.items()]
    return markdown_table(["", "rows"], rows)


def _files(manifest: Manifest) -> str:
    shown = manifest.files[:FILES_SHOWN]
    rows = [
        [
            file.path.removeprefix(f"{manifest.fingerprint}/"),
            f"{file.bytes:,}",
            "" if file.rows is None else f"{file.rows:,}",
            file.sha256[:12],
        ]
        for file in shown
    ]
    text = markdown_table(["file", "bytes", "rows", "sha256"], rows)
    more = len(manifest.files) - len(shown)
    return text + (f"\n\n… and {more} more" if more else "")


def _picture(path: Path) -> dg.MetadataValue[Any]:
    """The plot itself if it is small, else its thumbnail; and where the whole one stands."""
    small = path.with_stem(path.stem + SMALL)
    picture = _inline(path.stem, "png", _small_png(small if small.is_file() else path))
    return dg.MetadataValue.md(f"{picture}\n\n{escape(str(path.resolve()))}")


def _inline(title: str, kind: str, content: bytes) -> str:
    return f"![{escape(title)}](data:image/{kind};base64,{base64.b64encode(content).decode()})"


def _small_png(path: Path) -> bytes:
    content = path.read_bytes()
    if len(content) <= INLINE_BYTES:
        return content
    from PIL import Image  # the web UI loads this module; only a large picture needs PIL

    with Image.open(path) as picture:
        opaque = picture.convert("RGB")
    for width in THUMBNAIL_WIDTHS:
        thumbnail = opaque.copy()
        thumbnail.thumbnail((width, width))
        stream = io.BytesIO()
        thumbnail.quantize(64).save(stream, "PNG", optimize=True)
        if stream.tell() <= INLINE_BYTES:
            break
    return stream.getvalue()
